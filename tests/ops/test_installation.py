"""What pip puts beside the package, so that mmdet3d finds ``mmcv._ext`` whatever a program imports first."""

import pytest

from bevformer_plugin.ops import MMCV_EXT
from tests.helpers.installation import install, pip, run_installed, site_packages

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


@stand_in_only
@pytest.mark.parametrize('editable', [False, True], ids=['wheel', 'editable'])
def test_mmdet3d_may_be_imported_first(installed_python, tmp_path, editable):
    python = install(tmp_path, editable=True) if editable else installed_python
    lines = run_installed(python, '-c', IMPORTS, folder=tmp_path).splitlines()
    package = tmp_path / 'source' if editable else site_packages(python)
    assert lines[0] == 'False' and '(1, 3, 4, 4)' in lines
    assert lines[-1] == f'stand-in {package}/bevformer_plugin/__init__.py'


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
