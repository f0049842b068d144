"""Which devices a command line asks for."""

import pytest

from bevformer_plugin.training import Hardware, parse_devices
from tests.helpers.processes import NANO, run_tool


@pytest.mark.parametrize(
    ('text', 'devices', 'several'),
    [
        ('auto', 'auto', False),
        ('1', 1, False),
        ('8', 8, True),
        ('0,1', [0, 1], True),
        ('0,', [0], False),
        ('3,', [3], False),
    ],
)
def test_devices(text, devices, several):
    assert parse_devices(text) == devices
    assert Hardware(devices, accelerator='cpu' if devices == 'auto' else 'gpu').several_processes == several


@pytest.mark.parametrize('text', ['abc', '0', '-1', '', ',', '0,,1', '0,-1', '1.5', '0, 1', '0;1', '²', '1,1'])
def test_other_devices_are_refused_by_name(text):
    with pytest.raises(ValueError, match='devices') as caught:
        parse_devices(text)
    assert repr(text) in str(caught.value)


def test_numbers_of_devices_on_a_cpu_and_no_node_are_refused():
    with pytest.raises(ValueError, match=r'devices \[0, 1\] are numbers of GPUs.*--devices 2'):
        Hardware([0, 1], accelerator='cpu')
    with pytest.raises(ValueError, match='nodes must be at least 1, got 0'):
        Hardware(num_nodes=0)


@pytest.mark.parametrize('devices', ['abc', '0', '-1'])
@pytest.mark.parametrize('tool', ['train', 'test'])
def test_the_tools_end_with_one_line(tool, devices, tmp_path):
    arguments = ['--work-dir', tmp_path / 'run'] if tool == 'train' else [tmp_path / 'missing.ckpt']
    done = run_tool(tool, NANO, *arguments, f'--devices={devices}')
    assert (done.returncode, done.last_line.partition(' must')[0]) == (1, 'error: devices'), done.output
    assert repr(devices) in done.last_line and not (tmp_path / 'run').exists()
