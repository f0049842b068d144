"""The page that tools/doctor.py prints: what is right, what is worth a note, and what is wrong, with the remedy."""

from dataclasses import dataclass, field
from enum import Enum


class Verdict(Enum):
    """The verdict on what was examined; its value is the word that the page prints."""

    OK = 'ok'
    NOTE = 'note'
    WRONG = 'WRONG'


@dataclass(frozen=True)
class Line:
    """One line of the page.

    Attributes:
        verdict: whether what was examined is right.
        subject: what was examined, in a word or two.
        text: what was found, and where something is wrong the remedy.
    """

    verdict: Verdict
    subject: str
    text: str


def ok(subject: str, text: str) -> Line:
    """Make a line about something that is right."""
    return Line(Verdict.OK, subject, text)


def note(subject: str, text: str) -> Line:
    """Make a line about something that may be intended but is worth knowing."""
    return Line(Verdict.NOTE, subject, text)


def wrong(subject: str, text: object) -> Line:
    """Make a line about something that has to be mended; of an exception the page shows the message."""
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
