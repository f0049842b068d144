"""The page that tools/doctor.py prints: what is well, what is worth a note, and what is wrong, with the remedy."""

from dataclasses import dataclass, field
from enum import Enum


class Verdict(Enum):
    """How something is, with the word that stands for it on the page."""

    OK = 'ok'
    NOTE = 'note'
    WRONG = 'WRONG'


@dataclass(frozen=True)
class Line:
    """One line of the page.

    Attributes:
        verdict: whether it is well.
        subject: what was examined, in a word or two.
        text: what was found, and where something is wrong the remedy.
    """

    verdict: Verdict
    subject: str
    text: str


def ok(subject: str, text: str) -> Line:
    """Make a line about what is well."""
    return Line(Verdict.OK, subject, text)


def note(subject: str, text: str) -> Line:
    """Make a line about what may be meant so and is good to know."""
    return Line(Verdict.NOTE, subject, text)


def wrong(subject: str, text: object) -> Line:
    """Make a line about what has to be mended; an exception stands for its message."""
    return Line(Verdict.WRONG, subject, str(text))


@dataclass
class Page:
    """Lines by section, in the order in which sections were added."""

    sections: dict[str, list[Line]] = field(default_factory=dict)

    @property
    def wrong(self) -> int:
        """The number of lines about what is wrong."""
        return sum(line.verdict is Verdict.WRONG for lines in self.sections.values() for line in lines)

    def text(self) -> str:
        """Return the page as text for a terminal."""
        rows = []
        for title, lines in self.sections.items():
            rows.append(title)
            rows += [f'  {line.verdict.value:<6}{line.subject:<18} {line.text}' for line in lines]
        count = self.wrong
        if not count:
            return '\n'.join([*rows, 'nothing is wrong'])
        return '\n'.join(
            [*rows, f'{count} {"thing is" if count == 1 else "things are"} wrong: see the lines with WRONG']
        )
