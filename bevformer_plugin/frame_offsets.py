"""Positions of frames relative to the current one, which datasets and detectors must understand alike."""

from bevformer_plugin.errors import InputError


def checked_offsets(offsets: object) -> tuple[int, ...]:
    """Return ``frame_offsets`` as a tuple.

    Raises:
        InputError: if they are no whole numbers that rise to 0, which is the current frame.
    """
    numbers = tuple(offsets) if isinstance(offsets, (list, tuple)) else ()
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
    if not numbers or not whole or numbers[-1] != 0 or sorted(set(numbers)) != list(numbers):
        raise InputError(f'frame_offsets are whole numbers that rise to 0, such as [-1, 0], not {offsets!r}')
    return numbers
