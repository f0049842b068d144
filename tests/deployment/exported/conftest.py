"""Exported files that tests share, and what goes with them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config

from bevformer_plugin.configuration import load_config
from bevformer_plugin.deployment import OnnxForm, export_checkpoint
from tests.helpers.repository import CONFIGS, NANO_WEIGHTS


@pytest.fixture(scope='session')
def onnx_libraries() -> None:
    """Skip where the libraries of the extra [onnx] are not installed."""
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason=f'{name} is not installed: pip install "bevformer_plugin[onnx]"')


@pytest.fixture(scope='session')
def nano_config(world_options: dict[str, object]) -> Callable[..., Config]:
    """Load the nano config on the tiny synthetic world, with options."""

    def load(**options: object) -> Config:
        return load_config(CONFIGS / 'bevformer_nano.py', {**world_options, **options})

    return load


@pytest.fixture(scope='session')
def nano_file(
    onnx_libraries: None, nano_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The trained nano as a file that takes raw images."""
    path = tmp_path_factory.mktemp('onnx') / 'nano.onnx'
    export_checkpoint(nano_config(), str(NANO_WEIGHTS), path, OnnxForm())
    return path
