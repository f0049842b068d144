"""Which devices a command line asks for."""

import pytest
import torch
from torch import nn

from bevformer_plugin.training import Hardware, parse_devices
from bevformer_plugin.training.hardware import check_norms
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


def test_norms_that_processes_on_cpus_cannot_train_are_refused():
    cpu, norms = torch.device('cpu'), nn.Sequential(nn.SyncBatchNorm(2))
    with pytest.raises(ValueError, match=r"norm_cfg\.type='SyncBN' needs GPUs to train in 2 processes"):
        check_norms(norms, cpu, processes=2)
    check_norms(norms, cpu, processes=1)
    check_norms(norms, torch.device('cuda'), processes=2)
    check_norms(nn.Sequential(nn.BatchNorm2d(2)), cpu, processes=2)


@pytest.mark.parametrize('devices', ['abc', '0', '-1'])
@pytest.mark.parametrize('tool', ['train', 'test'])
def test_the_tools_end_with_one_line(tool, devices, tmp_path):
    arguments = ['--work-dir', tmp_path / 'run'] if tool == 'train' else [tmp_path / 'missing.ckpt']
    done = run_tool(tool, NANO, *arguments, f'--devices={devices}')
    assert (done.returncode, done.last_line.partition(' must')[0]) == (1, 'error: devices'), done.output
    assert repr(devices) in done.last_line and not (tmp_path / 'run').exists()
