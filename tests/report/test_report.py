"""tools/report.py: the page in a browser, its numbers against the devkit's files, and the runs that it compares."""

import json
import re
import shutil

import pytest

from bevformer_plugin.evaluation import read_run_record, record_path
from bevformer_plugin.evaluation.bootstrap import Interval
from bevformer_plugin.evaluation.report import MEAN_ERRORS
from bevformer_plugin.report.analysis import run_names
from bevformer_plugin.report.charts import LEFT, PLOT_HEIGHT, RIGHT, TOP, WIDTH
from bevformer_plugin.report.comparison import reading
from tests.helpers.processes import run_tool
from tests.report.conftest import VERSION

MEGABYTE = 2**20
SHOWN = '[...document.querySelectorAll("section[data-view]")].filter(v => !v.hidden).map(v => v.dataset.view)'
CARDS = """Object.fromEntries([...document.querySelectorAll('section[data-view="{view}"] [data-card]')]
    .map(card => [card.dataset.card, Number(card.querySelector('.value').dataset.value)]))"""
ROW = """[...document.querySelectorAll(
        'section[data-view="{view}"] table[data-table="{table}"] tr[data-row="{row}"] td'
    )].map(cell => cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value))"""
PATH = """document.querySelector('section[data-view="{view}"] [data-chart="{chart}"] [data-curve^="{curve}"] path')
    .getAttribute('d')"""
# Sum of the true boxes of each table of slices.
SLICE_COUNTS = """Object.fromEntries([...document.querySelectorAll(
        'section[data-view="run-0"] [data-part="slices"] table'
    )].map(table => [table.dataset.table, [...table.querySelectorAll('td:first-of-type')]
        .reduce((sum, cell) => sum + Number(cell.dataset.value), 0)]))"""
# Pairs of words of one chart that lie over one another in the window.
OVERLAPS = """[...document.querySelectorAll('figure.chart svg')].flatMap(svg => {
    const texts = [...svg.querySelectorAll('text')].filter(t => t.textContent)
        .map(t => [t.textContent, t.getBoundingClientRect()]).filter(([_, r]) => r.width > 0);
    return texts.flatMap(([a, r], i) => texts.slice(i + 1).filter(([b, s]) =>
        Math.min(r.right, s.right) - Math.max(r.left, s.left) > 1 &&
        Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top) > 3
    ).map(([b, s]) => [svg.getAttribute('aria-label'), a, b]));
})"""


def headline(summary: dict) -> dict[str, float]:
    """The devkit's headline by the names of the cards."""
    errors = {name: summary['tp_errors'][key] for name, key in MEAN_ERRORS.items()}
    return {'NDS': summary['nd_score'], 'mAP': summary['mean_ap'], **errors}


def test_the_page_asks_for_nothing_and_complains_of_nothing(opened, written):
    assert opened.complaints == []
    others = [address for address in opened.requests if not address.startswith('data:')]
    assert others == [written[1].as_uri()]
    assert written[1].stat().st_size < 3 * MEGABYTE


def test_headline_and_classes_are_the_devkits(opened, summaries):
    for number, of_run in enumerate(summaries):
        summary, view = of_run['summary'], f'run-{number}'
        assert opened.evaluate(CARDS.format(view=view)) == pytest.approx(headline(summary), abs=1e-6)
        cells = opened.evaluate(ROW.format(view=view, table='classes', row='car'))
        aps = summary['label_aps']['car']
        assert cells[2:7] == pytest.approx([summary['mean_dist_aps']['car'], *aps.values()], abs=1e-6)
        assert cells[7:12] == pytest.approx(list(summary['label_tp_errors']['car'].values()), abs=1e-6)
        total = opened.evaluate(ROW.format(view=view, table='classes', row='all, means'))
        assert total[2] == pytest.approx(summary['mean_ap'], abs=1e-6)
        assert total[1] == summary['num_predictions']


def test_curves_are_the_devkits(opened, summaries):
    for number, of_run in enumerate(summaries):
        for distance in (0.5, 1.0, 2.0, 4.0):
            path = opened.evaluate(PATH.format(view=f'run-{number}', chart='precision-car', curve=f'{distance:g} m'))
            drawn = [tuple(map(float, pair.split())) for pair in re.split('[ML]', path)[1:]]
            details = of_run['details'][f'car:{distance}']
            reached = [index for index, score in enumerate(details['confidence']) if score > 0]
            assert len(drawn) == len(reached) >= 9
            for index, (x, y) in zip(reached, drawn, strict=True):
                assert (x - LEFT) / (WIDTH - RIGHT - LEFT) == pytest.approx(details['recall'][index], abs=1e-4)
                precision = (TOP + PLOT_HEIGHT - y) / PLOT_HEIGHT
                assert precision == pytest.approx(details['precision'][index], abs=1e-4)


def test_all_parts_are_there(opened):
    parts = ['headline', 'classes', 'slices', 'budget', 'confusion', 'reliability', 'frames']
    links = opened.evaluate('[...document.querySelectorAll(".links a")].map(a => a.dataset.part)')
    assert links == parts
    for view in ('run-0', 'run-1'):
        found = f'[...document.querySelectorAll(\'section[data-view="{view}"] [data-part]\')].map(p => p.dataset.part)'
        assert opened.evaluate(found) == parts
        pictures = f'[...document.querySelectorAll(\'section[data-view="{view}"] .picture img\')]'
        widths = opened.evaluate(f'Promise.all({pictures}.map(i => i.decode().then(() => i.naturalWidth)))')
        assert widths == [960] * 6
    sizes = opened.evaluate(
        '[...document.querySelectorAll("[data-chart]")].map(f => f.querySelectorAll("path, rect").length)'
    )
    assert len(sizes) > 20 and min(sizes) > 0


def test_slices_add_up(opened):
    counts = opened.evaluate(SLICE_COUNTS)
    total = opened.evaluate(ROW.format(view='run-0', table='classes', row='all, means'))[0]
    assert len(counts) == 8 and set(counts.values()) == {total} and total > 50


def test_a_click_shows_the_other_run_and_the_difference(opened, summaries):
    nds = [of_run['summary']['nd_score'] for of_run in summaries]
    visible = (
        '[...document.querySelectorAll("[data-card=NDS] .value")].filter(v => v.offsetParent).map(v => v.textContent)'
    )
    assert opened.evaluate(SHOWN) == ['run-0'] and opened.evaluate(visible) == [f'{nds[0]:.3f}']
    opened.click('button[data-show="run-1"]')
    assert opened.evaluate(SHOWN) == ['run-1'] and opened.evaluate(visible) == [f'{nds[1]:.3f}']
    assert opened.evaluate('document.querySelector("button[aria-pressed=true]").textContent') == 'far'
    opened.click('button[data-show="difference-1"]')
    assert opened.evaluate(SHOWN) == ['difference-1'] and opened.evaluate(visible) == []
    row = opened.evaluate(ROW.format(view='difference-1', table='difference', row='NDS, nuScenes detection score'))
    assert row[:3] == pytest.approx([*nds, nds[1] - nds[0]], abs=1e-6)
    assert row[5] == 'too few scenes'
    assert opened.complaints == []


def test_a_link_to_a_frame_shows_the_run_that_it_belongs_to(opened):
    key = opened.evaluate('document.querySelector(\'section[data-view="run-1"] figure[id]\').id')
    assert key.startswith('run-1-frame-')
    opened.evaluate(f'location.hash = {key!r}; new Promise(done => setTimeout(done, 50))')
    assert opened.evaluate(SHOWN) == ['run-1']
    assert opened.evaluate(f'Math.abs(document.getElementById({key!r}).getBoundingClientRect().top) < 200')


@pytest.mark.parametrize('width', [360, 1200])
def test_words_of_charts_do_not_overlap_and_nothing_is_cut_off(opened, width):
    opened.resize(width, 800, mobile=width < 500)
    for view in ('run-0', 'difference-1'):
        opened.evaluate(f'document.querySelector(\'button[data-show="{view}"]\').click()')
        assert opened.evaluate('document.documentElement.scrollWidth') <= width
        assert opened.evaluate(OVERLAPS) == []


def test_the_page_says_what_is_known_of_a_run_and_what_is_not(opened, submissions):
    facts = 'document.querySelector(\'section[data-view="{}"] .facts\').textContent'
    record = read_run_record(submissions[0])
    assert record is not None
    known = opened.evaluate(facts.format('run-0'))
    assert "tools/test.py bevformer/nano 'a b.pth'" in known and record.checkpoint_sha256 in known
    assert 'not recorded' in opened.evaluate(facts.format('run-1'))


@pytest.mark.parametrize(
    ('low', 'high', 'scenes', 'higher_is_better', 'words'),
    [
        (0.01, 0.2, 20, True, 'better'),
        (0.01, 0.2, 20, False, 'worse'),
        (-0.2, -0.01, 20, True, 'worse'),
        (-0.2, -0.01, 4, False, 'better'),
        (-0.01, 0.2, 20, True, 'within noise'),
        (0.01, 0.2, 3, True, 'too few scenes'),
        (float('nan'), float('nan'), 1, True, 'too few scenes'),
    ],
)
def test_noise_is_not_read_as_progress(low, high, scenes, higher_is_better, words):
    assert reading(Interval((low + high) / 2, low, high), scenes, higher_is_better)[0] == words


def test_the_terminal_says_the_same_in_short(written, summaries):
    lines = written[0].output.splitlines()
    (row,) = [line for line in lines if line.startswith('far  ')]
    assert [float(word) for word in row.split()[1:3]] == pytest.approx(
        [summaries[1]['summary'][key] for key in ('nd_score', 'mean_ap')], abs=1e-4
    )
    assert any(line.startswith('far minus near: NDS ') and line.endswith(', too few scenes') for line in lines)
    assert lines[-1] == f'wrote {written[1]}: open it in a browser'


def test_without_images_the_page_has_no_pictures_and_says_so(submissions, copied_root, tmp_path):
    (copied_root / 'samples').unlink()
    page = tmp_path / 'report.html'
    done = run_tool('report', submissions[0], '--root', copied_root, '--version', VERSION, '--out', page)
    assert done.returncode == 0, done.output
    text = page.read_text()
    assert 'No pictures: none of the 12 keyframes has the images of all its cameras' in text
    assert 'data:image/jpeg' not in text and 'data-show="' not in text


@pytest.mark.slow
def test_tracks_are_scored_and_drawn(submissions, synthetic_root, info_files, tmp_path):
    pytest.importorskip('motmetrics')
    tracks, page = tmp_path / 'tracking.json', tmp_path / 'report.html'
    world = ('--root', synthetic_root, '--version', VERSION)
    for command in (
        ('track', submissions[0], '--infos', info_files['mini_val'], '--out', tracks, '--workers', '1'),
        ('evaluate', tracks, '--task', 'tracking', *world),
        ('report', submissions[0], '--tracks', tracks, *world, '--out', page),
    ):
        done = run_tool(*command)
        assert done.returncode == 0, done.output
    amota = json.loads((tmp_path / 'tracking_summary.json').read_text())['amota']
    table = page.read_text().partition('data-table="tracks"')[2].partition('</table>')[0]
    assert f'data-value="{amota}"' in table.partition('data-row="all"')[2]
    assert 'in the colours of their tracks' in page.read_text()


def test_a_record_of_other_content_is_not_shown(submissions, tmp_path):
    for name in ('results_nusc.json', 'results_nusc.record.json'):
        shutil.copy(submissions[0].with_name(name), tmp_path / name)
    path = tmp_path / 'results_nusc.json'
    assert read_run_record(path) is not None
    content = json.loads(path.read_text())
    content['results'][next(iter(content['results']))].pop()
    path.write_text(json.dumps(content))
    assert read_run_record(path) is None
    assert record_path(path).is_file()


@pytest.mark.parametrize(
    ('paths', 'names'),
    [
        (['a/results_nusc.json'], ['a']),
        (['a/one.json', 'a/two.json'], ['one', 'two']),
        (['a/results_nusc.json', 'a/b/results_nusc.json'], ['a', 'b']),
        (['a/x/results_nusc.json', 'b/x/results_nusc.json'], ['a/x', 'b/x']),
        (['a/results_nusc.json', 'a/other.json'], ['a', 'other']),
        (['a/one_results_nusc.json', 'a/two_results_nusc.json'], ['one', 'two']),
        (['/a/results_nusc.json', '/a.json'], ['/a/results_nusc.json', '/a.json']),
    ],
)
def test_runs_are_named_by_what_differs(paths, names):
    assert run_names(paths) == names


@pytest.mark.slow
def test_real_submissions_get_their_published_headline(shared_dir, browser, tmp_path):
    """Two submissions of others on real nuScenes, 81 keyframes of which five have images."""
    root = shared_dir / 'real' / 'nuscenes'
    published = {
        'TRELPy_mini_val': 'TRELPy_mini_val_metrics_summary.published.json',
        'CC3DT_mini_val': 'CC3DT_mini_val_metrics_summary.devkit-1.2.0.json',
    }
    results = [root / 'results' / f'{name}_results_nusc.json' for name in published]
    page = tmp_path / 'report.html'
    done = run_tool('report', *results, '--root', root, '--version', VERSION, '--out', page)
    assert done.returncode == 0, done.output
    assert page.stat().st_size < 3 * MEGABYTE
    browser.open(page.as_uri())
    for number, (name, summary) in enumerate(published.items()):
        expected = headline(json.loads((root / 'results' / summary).read_text()))
        assert browser.evaluate(CARDS.format(view=f'run-{number}')) == pytest.approx(expected, abs=1e-6)
        assert browser.evaluate(f'document.querySelector(\'[data-show="run-{number}"]\').textContent') == name
    assert set(browser.evaluate(SLICE_COUNTS).values()) == {3393}  # the devkit's true boxes with points within range
    assert browser.complaints == []
    assert 'Of the 81 keyframes with true boxes, 5 have the images of all their cameras' in page.read_text()
    assert page.read_text().count('<img src="data:image/jpeg') == 10
