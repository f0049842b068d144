"""What importing the plugin does to mmcv; each case in an interpreter of its own."""

import os
import subprocess
import sys

import pytest

from bevformer_plugin.ops import MMCV_EXT

stand_in_only = pytest.mark.skipif(MMCV_EXT == 'compiled', reason='a compiled mmcv is installed')


def run(script):
    result = subprocess.run(
        [sys.executable, '-c', script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_all_of_mmdet_and_mmdet3d_import():
    assert (
        run(
            'import bevformer_plugin, mmcv.ops, mmdet.models, mmdet3d.models, mmdet3d.datasets\n'
            'from mmdet3d.registry import MODELS\n'
            'print(MODELS.get("CenterPoint").__name__)'
        )
        == 'CenterPoint'
    )


@stand_in_only
def test_works_after_an_import_that_came_too_early():
    assert (
        run(
            'import sys\n'
            # As where the plugin is not installed, but only on the path.
            'sys.meta_path[:] = [f for f in sys.meta_path if getattr(f, "__name__", "") != "StandInFinder"]\n'
            'try:\n'
            '    import mmdet3d.models\n'
            'except ModuleNotFoundError as error:\n'
            '    print(error.name)\n'
            'import bevformer_plugin.ops, mmdet3d.models\n'
            'print(bevformer_plugin.ops.MMCV_EXT)'
        )
        == 'mmcv._ext\nstand-in'
    )


@stand_in_only
def test_a_compiled_module_wins(tmp_path):
    (tmp_path / '_ext.py').write_text('SOURCE = "installed"\ndef __getattr__(name): return print\n')
    assert (
        run(
            f'import mmcv; mmcv.__path__.append({str(tmp_path)!r})\n'
            'import bevformer_plugin.ops, mmcv._ext\n'
            'print(bevformer_plugin.ops.MMCV_EXT, mmcv._ext.SOURCE)'
        )
        == 'compiled installed'
    )


@stand_in_only
def test_other_operators_say_how_to_get_them():
    import torch
    from mmcv.ops import nms

    with pytest.raises(NotImplementedError, match=r"operator 'nms'.*pip install mmcv==2\.1\.0"):
        nms(torch.rand(3, 4), torch.rand(3), 0.5)
