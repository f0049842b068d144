"""Links of the guides to lines of code; ``python tests/docs/guide_links.py --fix`` sets them right."""

import argparse
import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / 'docs'
GUIDES = ('attention.md', 'attention_zh-CN.md')
CODE_LINK = re.compile(r'\]\((\S+\.py)#L(\d+) "([^"]+)"\)')


def lines_with(path: str, code: str) -> list[int]:
    """Numbers of the lines that hold a piece of code; the path is relative to docs/."""
    lines = (DOCS / path).read_text(encoding='utf-8').splitlines()
    return [index + 1 for index, line in enumerate(lines) if code in line]


def with_current_lines(text: str) -> tuple[str, list[str]]:
    """A guide with every link at the nearest line that holds its code, and the links whose code is nowhere."""
    lost: list[str] = []

    def current(link: re.Match) -> str:
        path, number, code = link.groups()
        numbers = lines_with(path, code)
        if not numbers:
            lost.append(f'{path}#L{number} "{code}"')
            return link[0]
        nearest = min(numbers, key=lambda line: abs(line - int(number)))
        return f']({path}#L{nearest} "{code}")'

    return CODE_LINK.sub(current, text), lost


def main() -> None:
    parser = argparse.ArgumentParser(description='Check that the links of the guides lead to the lines they quote.')
    parser.add_argument('--fix', action='store_true', help='write the current line numbers into the guides')
    args = parser.parse_args()
    problems = []
    for name in GUIDES:
        text = (DOCS / name).read_text(encoding='utf-8')
        current, lost = with_current_lines(text)
        problems += [f'{name}: {link} is nowhere in that file: quote the code as it is now' for link in lost]
        if current != text and args.fix:
            (DOCS / name).write_text(current, encoding='utf-8')
        elif current != text:
            problems.append(f'{name}: line numbers have moved: run this with --fix')
    if problems:
        sys.exit('\n'.join(problems))


if __name__ == '__main__':
    main()
