"""The guides: their examples print what they say, their links lead to the code they name."""

import contextlib
import io
import re

import pytest

from tests.docs.guide_links import CODE_LINK, GUIDES, lines_with
from tests.helpers.repository import REPO

DOCS = REPO / 'docs'
PAGES = sorted(
    str(path.relative_to(REPO))
    for pattern in ('*.md', 'docs/*.md', 'projects/*/README.md')
    for path in REPO.glob(pattern)
)
EXAMPLE = re.compile(r'```python\n(.*?)```\s*```text\n(.*?)```', re.DOTALL)
LINK = re.compile(r'\]\(([^()\s#]+)(?:#[^()\s]*)?(?: "[^"]*")?\)')


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding='utf-8')


@pytest.mark.parametrize('name', GUIDES)
def test_examples_print_what_is_shown(name):
    namespace = {}
    examples = EXAMPLE.findall(read(name))
    assert len(examples) == read(name).count('```python') >= 6
    for code, shown in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        assert printed.getvalue() == shown, code


@pytest.mark.parametrize('name', GUIDES)
def test_every_formula_leads_to_its_line(name):
    links = CODE_LINK.findall(read(name))
    assert len(links) >= 40
    for path, number, code in links:
        now = lines_with(path, code)
        assert int(number) in now, (
            f'{path}#L{number} is not {code!r}, which is in lines {now}: python tests/docs/guide_links.py --fix'
        )


@pytest.mark.parametrize('page', PAGES)
def test_linked_files_exist(page):
    targets = LINK.findall((REPO / page).read_text(encoding='utf-8'))
    assert not [
        target
        for target in targets
        if not target.startswith('http') and not (REPO / page).parent.joinpath(target).exists()
    ]


def test_both_languages_say_the_same():
    """Code but for its comments, output, links to code and pictures, in the same order."""
    english, chinese = (read(name) for name in GUIDES)
    for pattern in (CODE_LINK, re.compile(r'\]\((images/\S+)\)'), re.compile(r'```text\n(.*?)```', re.DOTALL)):
        assert pattern.findall(english) == pattern.findall(chinese)
    code = [re.sub(r'\s*#.*', '', '\n'.join(code for code, _ in EXAMPLE.findall(text))) for text in (english, chinese)]
    assert code[0] == code[1]
    assert english.count('\n## ') == chinese.count('\n## ')


def test_the_worked_example_is_there():
    for name in GUIDES:
        assert '[0.88, 0.35]' in read(name)
