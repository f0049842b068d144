"""What names the version of the package names the same one."""

import re

import yaml

import bevformer_plugin
from tests.helpers.repository import REPO


def test_citation_and_changelog_know_the_version():
    citation = yaml.safe_load((REPO / 'CITATION.cff').read_text(encoding='utf-8'))
    headings = re.findall(r'^## (\S+)', (REPO / 'CHANGELOG.md').read_text(encoding='utf-8'), re.MULTILINE)
    assert citation['version'] == headings[1] == bevformer_plugin.__version__ and headings[0] == 'Unreleased'
    assert len(citation['preferred-citation']['authors']) == 8
