"""Two submissions of the synthetic world's validation scenes and the report on both, as the tool writes it."""

import copy
import json

import numpy as np
import pytest

from bevformer_plugin.datasets.infos import load_infos
from bevformer_plugin.evaluation import write_results, write_run_record
from tests.helpers.annotations import annotations_as_results
from tests.helpers.chromium import browser_page
from tests.helpers.processes import run_tool
from tests.helpers.repository import NANO_WEIGHTS

VERSION = 'v1.0-mini'


def disturbed(results: dict[str, list[dict]], spread: float, seed: int) -> dict[str, list[dict]]:
    """A submission of true boxes that are shifted at random by ``spread`` metres, with scores that mean little."""
    random = np.random.default_rng(seed)
    changed = copy.deepcopy(results)
    for entries in changed.values():
        for entry in entries:
            entry['translation'] = [*(np.array(entry['translation'][:2]) + random.normal(0, spread, 2)), 1.0]
            entry['velocity'] = [0.0, 0.0]
            entry['detection_score'] = float(random.uniform(0.1, 1))
    return changed


@pytest.fixture(scope='package')
def submissions(tables, info_files, tmp_path_factory):
    """Files of two submissions, the first of which is nearer to the truth and has a record beside it."""
    tokens = [entry['token'] for entry in load_infos(info_files['mini_val'])['data_list']]
    truth = annotations_as_results(tables, tokens)
    folder = tmp_path_factory.mktemp('runs')
    paths = []
    for name, spread, seed in (('near', 0.4, 0), ('far', 1.5, 1)):
        path = folder / name / 'results_nusc.json'
        write_results(disturbed(truth, spread, seed), path)
        paths.append(path)
    write_run_record(paths[0], 'bevformer/nano', NANO_WEIGHTS, ['tools/test.py', 'bevformer/nano', 'a b.pth'])
    return paths


@pytest.fixture(scope='package')
def summaries(submissions, synthetic_root):
    """The devkit's metrics and curves of both submissions, as tools/evaluate.py writes them."""
    written = []
    for path in submissions:
        done = run_tool('evaluate', path, '--root', synthetic_root, '--version', VERSION)
        assert done.returncode == 0, done.output
        written.append(
            {name: json.loads(path.with_name(f'metrics_{name}.json').read_text()) for name in ('summary', 'details')}
        )
    return written


@pytest.fixture(scope='package')
def written(submissions, synthetic_root, tmp_path_factory):
    """What the tool printed for both submissions, and the page that it wrote."""
    page = tmp_path_factory.mktemp('page') / 'report.html'
    done = run_tool('report', *submissions, '--root', synthetic_root, '--version', VERSION, '--out', page)
    assert done.returncode == 0, done.output
    return done, page


@pytest.fixture(scope='package')
def browser(tmp_path_factory):
    """A tab of one browser for all tests."""
    with browser_page(tmp_path_factory.mktemp('browser') / 'profile') as page:
        yield page


@pytest.fixture
def opened(browser, written):
    """The page freshly loaded, in a window of a desktop's width."""
    browser.resize(1200, 900)
    browser.open(written[1].as_uri())
    return browser
