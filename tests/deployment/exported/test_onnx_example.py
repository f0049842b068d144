"""The example of docs/deployment.md runs as it stands, in a process that knows neither torch nor this package."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from bevformer_plugin.weights import load_weights
from tests.helpers.repository import NANO_WEIGHTS, REPO

FRAMES = range(2, 5)  # of the first scene
# Runs a script, then fails if it has brought in what it is to do without.
ALONE = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
sys.exit(', '.join(sorted({'torch', 'bevformer_plugin', 'mmdet3d', 'mmengine'} & sys.modules.keys())) or None)
"""


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The block of Python in the English page, which the Chinese one has as well."""
    blocks = [
        re.findall(r'```python\n(.*?)```', (REPO / 'docs' / name).read_text(encoding='utf-8'), re.DOTALL)
        for name in ('deployment.md', 'deployment_zh-CN.md')
    ]
    assert blocks[0] == blocks[1] and len(blocks[0]) == 1
    path = tmp_path / 'detect.py'
    path.write_text(blocks[0][0])
    return path


@torch.no_grad()
def test_the_example(example: Path, nano_file: Path, nano_config: Callable[..., Config], tmp_path: Path):
    cfg = nano_config()
    dataset, detector = DATASETS.build(cfg.test_dataloader.dataset), MODELS.build(cfg.model).eval()
    load_weights(detector, str(NANO_WEIGHTS))
    drive, expected = {key: [] for key in ('images', 'lidar2img', 'ego2global', 'can_bus', 'time')}, []
    for index in FRAMES:
        batch = pseudo_collate([dataset[index]])
        images, (sample,) = batch['inputs']['img'][0], batch['data_samples']
        meta = sample.metainfo
        drive['images'].append(images[0].permute(0, 2, 3, 1).numpy())
        for key in ('lidar2img', 'ego2global', 'can_bus'):
            drive[key].append(meta[key])
        drive['time'].append(meta['timestamp'])
        data = detector.data_preprocessor(batch)
        expected.append(detector.predict(data['inputs'], data['data_samples'])[0].pred_instances_3d)
    np.savez(tmp_path / 'drive.npz', **{key: np.stack(value) for key, value in drive.items()})
    command = [sys.executable, '-c', ALONE, example, nano_file, tmp_path / 'drive.npz', tmp_path / 'boxes.npz']
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = np.load(tmp_path / 'boxes.npz')
    for number, instances in enumerate(expected):
        scores = instances.scores_3d.numpy()
        np.testing.assert_allclose(found[f'scores{number}'], scores, atol=1e-4)
        clear = np.flatnonzero(np.diff(scores[:20]) < -1e-3)  # whose place is no matter of round-off
        clear = [place for place in clear if place == 0 or scores[place - 1] - scores[place] > 1e-3]
        assert len(clear) >= 3
        centers = instances.bboxes_3d.gravity_center.numpy()
        np.testing.assert_allclose(found[f'boxes{number}'][clear, :3], centers[clear], atol=1e-3)
        assert (found[f'labels{number}'][clear] == instances.labels_3d.numpy()[clear]).all()
