"""What a page is made of: views of which one is shown at a time, their parts, and blocks of six kinds."""

from dataclasses import dataclass, field
from math import isfinite
from typing import ClassVar

from markupsafe import Markup

MISSING = '\N{EN DASH}'  # stands for a number that does not exist
MINUS = '\N{MINUS SIGN}'


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what it shows.
        value: the number behind the text, with all its digits, None for words.
        kind: style, such as 'better', 'worse', 'noise', 'empty', 'words' or 'bar-cell'.
        note: tooltip.
        drawing: shown in place of the text.
        heat: darkness of the background from 0 to 1, None for none.
    """

    text: str = ''
    value: float | None = None
    kind: str = ''
    note: str = ''
    drawing: Markup | None = None
    heat: float | None = None


@dataclass(frozen=True)
class Row:
    """One row of a table: its name, its cells, and its kind, which is '', 'group' (a heading) or 'total'."""

    name: str
    cells: tuple[Cell, ...] = ()
    kind: str = ''
    note: str = ''


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        key: its name for links and tests.
        head: titles of the columns, the first that of the names of the rows.
        rows: the rows.
        style: '' or 'matrix'.
    """

    kind: ClassVar[str] = 'table'
    key: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    style: str = ''


@dataclass(frozen=True)
class Card:
    """A number of the headline.

    Attributes:
        name: short, such as 'mATE'.
        label: what it is, such as 'translation error in m'.
        value: with all its digits.
        below: its interval in words.
        bar: its drawing.
        is_wide: larger than the others.
    """

    name: str
    label: str
    value: float
    below: str
    bar: Markup
    is_wide: bool = False

    @property
    def text(self) -> str:
        """The number for people."""
        return number(self.value)


@dataclass(frozen=True)
class Cards:
    """The numbers of the headline."""

    kind: ClassVar[str] = 'cards'
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Facts:
    """Names and what is known of each."""

    kind: ClassVar[str] = 'facts'
    facts: dict[str, str]


@dataclass(frozen=True)
class Charts:
    """Charts side by side, each a ``figure`` element."""

    kind: ClassVar[str] = 'charts'
    charts: tuple[Markup, ...]


@dataclass(frozen=True)
class FramePicture:
    """A picture of a keyframe: the name that links end with, its title, its caption and its data URI."""

    key: str
    title: str
    caption: str
    uri: str


@dataclass(frozen=True)
class Frames:
    """Pictures of keyframes."""

    kind: ClassVar[str] = 'frames'
    frames: tuple[FramePicture, ...]


@dataclass(frozen=True)
class Paragraph:
    """Words; ``is_title`` makes them a heading."""

    kind: ClassVar[str] = 'paragraph'
    text: str
    is_title: bool = False


Block = Table | Cards | Facts | Charts | Frames | Paragraph


@dataclass(frozen=True)
class Part:
    """A part of a view: the name that links end with, its title, a sentence or two, and its blocks."""

    key: str
    title: str
    lead: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class View:
    """What is shown at a time: one run, or the difference of two. ``key`` begins the links to its parts."""

    key: str
    name: str
    title: str
    parts: tuple[Part, ...] = field(default=())


def number(value: float, decimals: int = 3, signed: bool = False) -> str:
    """Write a number for people, with a sign before positive ones if ``signed``; a dash for one that is not finite.

    What rounds to 0 has no sign.
    """
    if not isfinite(value):
        return MISSING
    rounded = round(value, decimals) or 0.0
    return f'{rounded:{"+" if signed and rounded else ""}.{decimals}f}'.replace('-', MINUS)


def number_cell(value: float, decimals: int = 3, signed: bool = False, kind: str = '', note: str = '') -> Cell:
    """Return a cell with a number."""
    return Cell(number(value, decimals, signed), value, kind if isfinite(value) else 'empty', note)


def count_text(value: int) -> str:
    """Write a count, its thousands apart."""
    return f'{value:,}'.replace(',', '\N{NO-BREAK SPACE}')


def count_cell(value: int) -> Cell:
    """Return a cell with a count."""
    return Cell(count_text(value), int(value))


def class_title(name: str) -> str:
    """Return the name of a class as people write it."""
    return name.replace('_', ' ')


def interval_text(interval: tuple[float, float] | None, decimals: int = 3, signed: bool = False) -> str:
    """Write an interval, '' where there is none."""
    if interval is None or not all(map(isfinite, interval)):
        return ''
    return f'{number(interval[0], decimals, signed)} to {number(interval[1], decimals, signed)}'
