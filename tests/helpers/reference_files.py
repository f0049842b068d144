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

from bevformer_plugin.weights.layout import swap_box_convention
from tests.helpers.repository import REPO

# The classes of the published models, in the order of their labels.
CLASSES = (
    'car',
    'truck',
    'construction_vehicle',
    'bus',
    'trailer',
    'barrier',
    'motorcycle',
    'bicycle',
    'pedestrian',
    'traffic_cone',
)
REFERENCE = Path(os.environ.get('BEVFORMER_REFERENCE_DIR', REPO / 'tests' / 'data' / 'reference'))
# A folder of other numbers may lack it: it is the same rule everywhere.
FILL = next(
    path for path in (REFERENCE / 'fill.py', REPO / 'tests' / 'data' / 'reference' / 'fill.py') if path.is_file()
)
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
    return _module(REFERENCE / f'{name}.py')


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f'reference_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def manifest(name: str) -> dict:
    """Names and shapes of a published model, or by module for ``modules``."""
    return json.loads((REFERENCE / f'{name}.state_dict.json').read_text())


def published_weights(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """State dict in the published layout, filled from names as the folder's README says."""
    fill = _module(FILL).fill
    state = {name: torch.from_numpy(np.asarray(fill(name, tuple(shape)))) for name, shape in shapes.items()}
    return {
        name: torch.tensor([1.0] * 8 + [0.2] * 2) if name.endswith('code_weights') else value
        for name, value in state.items()
    }


V2 = REFERENCE / 'v2'  # the published BEVFormerV2's numbers, with a README of their own


def v2_files(pattern: str) -> list:
    """Files of the v2 part as parameters of a test; a test that skips with the reason where there are none."""
    found = sorted(V2.glob(pattern))
    if not found:
        return [pytest.param(None, id='v2', marks=pytest.mark.skip(reason=f'{V2} has no {pattern}'))]
    return [pytest.param(path, id=f'v2-{path.name}') for path in found]


def v2_arrays(name: str, prefix: str = '') -> dict[str, Tensor]:
    """Tensors of a file of the v2 part whose names begin with ``prefix``, without it; skips where it is absent."""
    if not (V2 / name).is_file():
        pytest.skip(f'{V2} has no {name}')
    content = np.load(V2 / name)
    return {
        key.removeprefix(prefix): torch.from_numpy(np.asarray(content[key]))
        for key in content.files
        if key.startswith(prefix)
    }


def v2_manifest(name: str) -> dict:
    """Names and shapes of a published BEVFormerV2, of its training head, or by module for ``modules``."""
    return json.loads((V2 / f'{name}.state_dict.json').read_text())


def v2_rig() -> ModuleType:
    """``rig_v2`` of the v2 part."""
    return _module(V2 / 'rig_v2.py')


def box_rows(boxes: Tensor) -> Tensor:
    """Raw boxes (..., 10) of the old convention in ours, and back."""
    return swap_box_convention(boxes.movedim(-1, 0)).movedim(0, -1)
