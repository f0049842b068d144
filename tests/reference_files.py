"""The folder with the published implementation's numbers; its README says what they are."""
import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

COPY = Path(__file__).resolve().parent / 'data' / 'reference'
REFERENCE = Path(os.environ.get('BEVFORMER_REFERENCE_DIR', COPY))


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
    return {name: torch.tensor([1.0] * 8 + [0.2] * 2) if name.endswith('code_weights') else value
            for name, value in state.items()}
