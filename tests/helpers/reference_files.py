"""The folder with the published implementation's numbers; its README says what they are."""

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.repository import REPO

REFERENCE = Path(os.environ.get('BEVFORMER_REFERENCE_DIR', REPO / 'tests' / 'data' / 'reference'))
# Photographs may not be copied: they stay in a folder beside the repository.
REAL = next(
    (folder for folder in (REFERENCE / 'real', REPO.parent / 'shared' / 'reference' / 'real') if folder.is_dir()),
    None,
)


def files(pattern: str) -> list:
    """Files of the folder as parameters of a test; all but tiny's are large."""
    return [
        pytest.param(path, id=path.name, marks=[pytest.mark.slow] * ('tiny' not in path.name))
        for path in sorted(REFERENCE.glob(pattern))
    ]


def real_files(pattern: str) -> list:
    """Files of its ``real`` part; a test that skips with the reason where there is none."""
    if REAL is None:
        reason = f'no real photographs: neither {REFERENCE / "real"} nor ../shared/reference/real is there'
        return [pytest.param(None, id='real', marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(path, id=path.name) for path in sorted(REAL.glob(pattern))]


def reference_module(name: str) -> ModuleType:
    """``fill`` or ``rig`` of the folder."""
    spec = importlib.util.spec_from_file_location(f'reference_{name}', REFERENCE / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def manifest(name: str) -> dict:
    """Names and shapes of a published model, or by module for ``modules``."""
    return json.loads((REFERENCE / f'{name}.state_dict.json').read_text())


def published_weights(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """State dict in the published layout, filled from names as the folder's README says."""
    fill = reference_module('fill').fill
    state = {name: torch.from_numpy(np.asarray(fill(name, tuple(shape)))) for name, shape in shapes.items()}
    return {
        name: torch.tensor([1.0] * 8 + [0.2] * 2) if name.endswith('code_weights') else value
        for name, value in state.items()
    }
