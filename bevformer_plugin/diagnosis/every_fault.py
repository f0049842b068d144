"""Finding all rows that a check refuses, where the check itself raises for the first one."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from bevformer_plugin.errors import InputError

Row = TypeVar('Row')


def refusals(check: Callable[[Sequence[Row]], object], rows: Sequence[Row]) -> Iterator[str]:
    """Yield the message with which a check refuses each row that it refuses, in their order.

    Rows are checked together, and those of a refused half by halves, so that few bad ones among millions cost little.

    Args:
        check: raises InputError if any of the rows that it is given is bad; rows do not depend on each other.
        rows: the rows.
    """
    try:
        check(rows)
    except InputError as error:
        if len(rows) == 1:
            yield str(error)
            return
        middle = len(rows) // 2
        yield from refusals(check, rows[:middle])
        yield from refusals(check, rows[middle:])


def complaints(check: Callable[[Row], object], rows: Sequence[Row]) -> Iterator[str]:
    """Yield the message with which a check of single rows refuses each row that it refuses."""
    for row in rows:
        try:
            check(row)
        except InputError as error:
            yield str(error)
