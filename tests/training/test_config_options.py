"""What ``--cfg-options`` makes of the words of a command line."""

import math

import pytest

from bevformer_plugin.configuration import load_config, parse_config_options
from tests.helpers.processes import NANO, run_tool

VALUES = {
    '3': 3,
    '-2': -2,
    '1e-4': 1e-4,
    '007': 7,
    'inf': math.inf,
    'true': True,
    'False': False,
    'None': None,
    '': '',
    'SGD': 'SGD',
    'two words': 'two words',
    "'3'": '3',
    '"a,b"': 'a,b',
    '(12,12)': (12, 12),
    '( 12, 12 )': (12, 12),
    '[]': [],
    '[a, b]': ['a', 'b'],
    'a,b': ['a', 'b'],
    '1,2,3': [1, 2, 3],
    '1,': [1],
    '(1,2),(3,4)': [(1, 2), (3, 4)],
    '[(1,2),[a,true],None]': [(1, 2), ['a', True], None],
    "('img_backbone', 'encoder')": ('img_backbone', 'encoder'),
    "['a, b', c]": ['a, b', 'c'],
    '/data/nu scenes/v1': '/data/nu scenes/v1',
    '/data/a,b/c': '/data/a,b/c',
    '(old)/nuscenes': '(old)/nuscenes',
    "/data/it's [here]": "/data/it's [here]",
    "['/data/a b', '/data/c,d']": ['/data/a b', '/data/c,d'],
    '[/data/a b, x/y]': ['/data/a b', 'x/y'],
    'a=b': 'a=b',
    '2024-01-05': '2024-01-05',
    "{'type': 'SGD'}": {'type': 'SGD'},
}


@pytest.mark.parametrize('text', VALUES)
def test_values(text):
    value = parse_config_options([f'x.0.y={text}'])
    assert value == {'x.0.y': VALUES[text]} and type(value['x.0.y']) is type(VALUES[text])


def test_no_options():
    assert parse_config_options(None) == parse_config_options([]) == {}


@pytest.mark.parametrize(
    ('pairs', 'message'),
    [
        (['lr'], r"takes key=value, got 'lr'"),
        (['=3'], r"takes key=value, got '=3'"),
        (['data_root=/a', 'b/c'], r"got 'b/c'; put quotes around a pair with spaces"),
        (['a=1', 'b=2', 'a=3'], r'sets a twice: to 1 and to 3'),
        (['a=(1,2'], r'a=\(1,2: \) is missing at the end'),
        (['a=[1,2)'], r'a=\[1,2\): \) closes no bracket'),
        (['a=1]'], r'\] closes no bracket'),
        (["a='b"], r"a='b: ' is missing at the end"),
    ],
)
def test_what_is_no_option_is_refused(pairs, message):
    with pytest.raises(ValueError, match=message):
        parse_config_options(pairs)


@pytest.mark.parametrize(
    'option', ['optim_wrapper.paramwise_cfg.bypass_duplicate=True', 'param_scheduler.7.end=1', 'model.type.name=X']
)
def test_options_for_another_config_are_refused(option):
    with pytest.raises(ValueError, match=rf'{option.partition("=")[0]}.* do not fit config {NANO}'):
        load_config(NANO, parse_config_options([option]))


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_the_tools_end_with_one_line(tool, tmp_path):
    arguments = ['--work-dir', tmp_path / 'run'] if tool == 'train' else [tmp_path / 'missing.ckpt']
    done = run_tool(tool, NANO, *arguments, '--cfg-options', 'train_dataloader.batch_size')
    assert (done.returncode, done.last_line.partition(',')[0]) == (1, 'error: --cfg-options takes key=value')
    assert 'Traceback' not in done.output and not (tmp_path / 'run').exists()


def test_a_data_root_with_spaces_and_commas(synthetic_root, info_files, small_options, tmp_path):
    """A world whose path a shell or MMEngine would take apart."""
    root = tmp_path / 'my world, second'
    root.symlink_to(synthetic_root)
    options = [option.replace(f'data_root={synthetic_root}', f'data_root={root}') for option in small_options]
    assert sum(str(root) in option for option in options) == 5
    done = run_tool(
        'test', NANO, 'projects/synthetic_world/bevformer_nano.pth', '--out', tmp_path / 'out' / 'results_nusc.json',
        '--cfg-options', *[option for option in options if not option.startswith('model.')],
    )  # fmt: skip
    assert done.returncode == 0, done.output
    assert (tmp_path / 'out' / 'metrics_summary.json').exists()
