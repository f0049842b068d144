"""The published models as exported files: with the weights of the reference, beside the detector in PyTorch."""

from pathlib import Path

import pytest
import torch
from mmdet3d.registry import MODELS

from bevformer_plugin.configuration import load_config
from bevformer_plugin.deployment import ModelSurroundings, OnnxForm, OnnxNetwork, budget_for, export_onnx
from bevformer_plugin.deployment.static_detector import padded_hw
from bevformer_plugin.models import BEVFormer
from bevformer_plugin.weights import to_ours
from tests.deployment.exported.drives import drive, noise
from tests.helpers.reference_files import manifest, published_weights
from tests.helpers.repository import CONFIGS

slow = pytest.mark.slow


def build_published(name: str) -> BEVFormer:
    """A released config's detector with the reference's weights."""
    model = load_config(CONFIGS / f'{name}.py').model
    model.img_backbone.init_cfg = None
    detector = MODELS.build(model)
    detector.load_state_dict(to_ours(published_weights(manifest(name))))
    return detector.eval()


# Images have a sixteenth of their pixels, tiny's a quarter, which leaves out nothing but time.
@pytest.mark.parametrize(
    ('name', 'image_hw', 'frames'),
    [
        ('bevformer_tiny', (225, 400), 2),
        pytest.param('bevformer_small', (180, 320), 1, marks=slow),
        pytest.param('bevformer_base', (225, 400), 1, marks=slow),
    ],
)
@torch.no_grad()
def test_parity(onnx_libraries: None, tmp_path: Path, name: str, image_hw: tuple[int, int], frames: int):
    detector = build_published(name)
    driven = drive(image_hw, frames=frames)
    surroundings = ModelSurroundings((image_hw[1], image_hw[0]), tuple(map(str, range(6))), tuple(map(str, range(10))))
    budget = budget_for(detector, [driven[0].lidar2img], image_hw)
    export_onnx(detector, tmp_path / 'model.onnx', surroundings, budget, OnnxForm(images='normalized'))
    network, ours, theirs = OnnxNetwork(tmp_path / 'model.onnx'), None, None
    for number, frame in enumerate(driven):
        images = noise((6, 3, *padded_hw(detector.data_preprocessor, image_hw)), number)
        raw, theirs = network.step(images, frame, theirs)
        encoded = detector.encode(images[None], [frame], [ours])
        outputs, (ours,) = detector.heads['detection'](encoded.bev_embed), encoded.histories()
        torch.testing.assert_close(theirs.bev_embed, ours.bev_embed, atol=1e-3, rtol=0)
        torch.testing.assert_close(raw.scores, outputs.cls_scores[-1, 0], atol=1e-3, rtol=0)
        torch.testing.assert_close(raw.boxes, outputs.bbox_preds[-1, 0], atol=5e-3, rtol=0)
