"""What pip installs: the package with its configs and tools, and what lets mmdet3d find ``mmcv._ext``."""

from pathlib import Path

import pytest

from bevformer_plugin.ops import MMCV_EXT
from tests.helpers.installation import install, pip, run_installed, site_packages
from tests.helpers.repository import REPO

stand_in_only = pytest.mark.skipif(MMCV_EXT == 'compiled', reason='a compiled mmcv is installed')
IMPORTS = """
import sys
from mmdet3d.structures import Det3DDataSample
from mmdet3d.utils import register_all_modules
register_all_modules(init_default_scope=False)
print('bevformer_plugin' in sys.modules)
import mmcv.ops, torch
image = torch.ones(1, 2, 4, 4)
print(tuple(mmcv.ops.modulated_deform_conv2d(
    image, torch.zeros(1, 18, 4, 4), torch.ones(1, 9, 4, 4), torch.ones(3, 2, 3, 3), None, 1, 1).shape))
import bevformer_plugin
print(bevformer_plugin.ops.MMCV_EXT, bevformer_plugin.__file__)
"""
WORKERS = """
import multiprocessing
import sys


def collate(indices):
    from mmdet3d.structures import Det3DDataSample

    import mmcv.ops

    return Det3DDataSample(metainfo=dict(found=(indices, 'bevformer_plugin' in sys.modules, mmcv.ops.nms.__name__)))


if __name__ == '__main__':
    from torch.utils.data import DataLoader

    with multiprocessing.get_context('forkserver').Pool(1) as pool:
        print(pool.apply(collate, ([0],)).found)
    loader = DataLoader([1], num_workers=1, multiprocessing_context='spawn', collate_fn=collate)
    print(next(iter(loader)).found)
"""
BUILDS_BY_NAME = """
from mmdet3d.registry import MODELS
from bevformer_plugin.configuration import load_config
cfg = load_config('bevformer/bevformer_tiny')
print(type(MODELS.build(cfg.model)).__name__)
print(cfg.filename)
"""


@stand_in_only
@pytest.mark.parametrize('editable', [False, True], ids=['wheel', 'editable'])
def test_mmdet3d_may_be_imported_first(installed_python, tmp_path, editable):
    python = install(tmp_path, editable=True) if editable else installed_python
    lines = run_installed(python, '-c', IMPORTS, folder=tmp_path).splitlines()
    package = tmp_path / 'source' if editable else site_packages(python)
    assert lines[0] == 'False' and '(1, 3, 4, 4)' in lines
    assert lines[-1] == f'stand-in {package}/bevformer_plugin/__init__.py'


@stand_in_only
def test_mmdet3d_may_be_imported_first_in_spawned_workers(installed_python, tmp_path):
    """Of a pool started by a fork server and of a data loader; the parent unpickles what they return."""
    script = tmp_path / 'workers.py'
    script.write_text(WORKERS)
    lines = run_installed(installed_python, script, folder=tmp_path).splitlines()
    assert lines == ["([0], False, 'nms')", "([1], False, 'nms')"]


def test_starting_python_imports_nothing_of_it_but_the_finder(installed_python, tmp_path):
    script = (
        'import sys\n'
        'print(sum(finder.__name__ == "StandInFinder" for finder in sys.meta_path if isinstance(finder, type)))\n'
        'print(sorted({name.partition(".")[0] for name in sys.modules} & {"bevformer_plugin", "mmcv", "torch"}))\n'
        'print(sys.meta_path[-1].__name__)\n'
    )
    assert run_installed(installed_python, '-c', script, folder=tmp_path).split() == ['1', '[]', 'StandInFinder']


@pytest.mark.parametrize('editable', [False, True], ids=['wheel', 'editable'])
def test_uninstalling_leaves_nothing(tmp_path, editable):
    python = install(tmp_path, editable)
    assert len(list(site_packages(python).glob('_bevformer_plugin_mmcv_finder.p*'))) == 2
    pip(python, 'uninstall', '--yes', 'bevformer_plugin')
    assert [path.name for path in site_packages(python).iterdir() if 'bevformer' in path.name] == []


@pytest.mark.parametrize('editable', [False, True], ids=['wheel', 'editable'])
def test_a_detector_is_built_from_a_packaged_config_in_an_empty_folder(installed_python, tmp_path, editable):
    python = install(tmp_path, editable=True) if editable else installed_python
    package = (tmp_path / 'source' if editable else site_packages(python)) / 'bevformer_plugin'
    empty = tmp_path / 'empty'
    empty.mkdir()
    kind, path = run_installed(python, '-c', BUILDS_BY_NAME, folder=empty).splitlines()[-2:]
    assert kind == 'BEVFormer' and path == f'{package}/.mim/configs/bevformer/bevformer_tiny.py'
    done = run_installed(python, package / '.mim' / 'tools' / 'summarize.py', '--help', folder=empty)
    assert done.startswith('usage: summarize.py') and not list(empty.iterdir())


def files_below(folder: Path, pattern: str) -> set[str]:
    """Paths of the files that a pattern finds, from the folder on, but for compiled ones."""
    return {str(path.relative_to(folder)) for path in folder.glob(pattern) if path.is_file() and path.suffix != '.pyc'}


def test_a_wheel_holds_the_package_its_configs_and_tools_and_nothing_else(installed_python):
    site = site_packages(installed_python)
    assert {path.name for path in site.iterdir() if path.suffix != '.dist-info'} == {
        *('bevformer_plugin', 'packages_of_the_tests.pth', '__pycache__'),
        *('_bevformer_plugin_mmcv_finder.py', '_bevformer_plugin_mmcv_finder.pth'),
    }
    packaged = {
        *(f'configs/{file}' for file in files_below(REPO / 'configs', '**/*')),
        *(f'tools/{file}' for file in files_below(REPO / 'tools', '**/*')),
        *(f'projects/{file}' for file in files_below(REPO / 'projects', '*/bevformer_*.py')),
    }
    assert files_below(site / 'bevformer_plugin', '**/*') == {
        *files_below(REPO / 'bevformer_plugin', '**/*'),  # its links are not followed
        *(f'.mim/{file}' for file in packaged),
    }
    assert {'py.typed', 'ops/native/multi_scale_deformable_attention.cpp'} <= files_below(
        site / 'bevformer_plugin', '**/*'
    )
