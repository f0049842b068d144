"""An exported file behind the interface of StreamPredictor, for raw and for quantised images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS

from bevformer_plugin.configuration import load_config
from bevformer_plugin.datasets.infos import load_infos
from bevformer_plugin.deployment import (
    OnnxNetwork,
    OnnxPredictor,
    Rig,
    StreamFrame,
    StreamPredictor,
    StreamState,
    quantize_features,
)
from bevformer_plugin.deployment.checkpoint_export import prepared_images
from bevformer_plugin.errors import InputError
from bevformer_plugin.models import BEVHistory
from tests.deployment.rigs import recorded_frame
from tests.helpers.repository import CONFIGS, NANO_WEIGHTS

pytestmark = pytest.mark.usefixtures('onnx_libraries')


@pytest.fixture(scope='module')
def frames(synthetic_root: Path, info_files: dict[str, Path]) -> list[StreamFrame]:
    """Two frames of one validation scene and one of the next."""
    infos = load_infos(info_files['mini_val'], root=synthetic_root)['data_list']
    return [recorded_frame(info, synthetic_root) for info in (infos[0], infos[1], infos[6])]


@pytest.fixture(scope='module')
def predictor(nano_file: Path) -> OnnxPredictor:
    return OnnxPredictor(nano_file, threads=1)


def test_it_finds_what_the_checkpoint_finds(predictor: OnnxPredictor, frames: list[StreamFrame]):
    nano = load_config(CONFIGS / 'bevformer_nano.py')
    checkpoint = StreamPredictor.from_checkpoint(nano, NANO_WEIGHTS, 'cpu', optimize=False)
    for found, expected in zip(predictor.stream(frames), checkpoint.stream(frames), strict=True):
        assert found.classes == expected.classes
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
        clear = expected.scores[:-1] - expected.scores[1:] > 1e-3
        clear = np.flatnonzero(np.append(clear, True) & np.append(True, clear))
        assert len(clear) > 5
        difference = (found.bboxes_3d.tensor - expected.bboxes_3d.tensor)[clear].abs()
        assert difference[:, :6].max() < 1e-3
        assert (found.labels[clear] == expected.labels[clear]).all()


def test_a_camera_without_an_image_is_masked(predictor: OnnxPredictor, frames: list[StreamFrame]):
    frame = frames[0]
    blind = {name: None if name == 'CAM_BACK' else image for name, image in frame.images.items()}
    found, state = predictor.step(blind, frame.rig, frame.pose, frame.timestamp)
    assert state.history is not None
    everything, _ = predictor.step(frame.images, frame.rig, frame.pose, frame.timestamp)
    assert not np.array_equal(found.scores, everything.scores)


def test_the_state_of_another_model_is_refused(predictor: OnnxPredictor, frames: list[StreamFrame]):
    frame = frames[0]
    _, state = predictor.step(frame.images, frame.rig, frame.pose, frame.timestamp)
    assert isinstance(state.history, BEVHistory)
    foreign = StreamState(replace(state.history, bev_embed=state.history.bev_embed[:, :32]))
    with pytest.raises(InputError, match='it holds a BEV of 4096 cells of 32 channels, this model leaves one of 4096'):
        predictor.step(frames[1].images, frame.rig, frames[1].pose, frames[1].timestamp, foreign)


def test_a_rig_that_sees_more_is_refused(predictor: OnnxPredictor, frames: list[StreamFrame]):
    frame, front = frames[0], frames[0].rig.cameras['CAM_FRONT']
    everywhere_ahead = Rig(dict.fromkeys(frame.rig.cameras, front), frame.rig.lidar2ego)
    with pytest.raises(InputError, match='6 cameras see one pillar'):
        predictor.step(frame.images, everywhere_ahead, frame.pose, frame.timestamp)


@torch.no_grad()
def test_integers_in_backbone_and_neck(nano_file: Path, nano_config, predictor: OnnxPredictor, frames, tmp_path: Path):
    import onnx

    dataset = DATASETS.build(nano_config().test_dataloader.dataset)
    images = list(prepared_images(dataset, predictor.network.description, 3))
    assert [tuple(image.shape) for image in images] == [(6, 3, 180, 320)] * 3
    quantize_features(nano_file, tmp_path / 'int8.onnx', images)
    model = onnx.load(str(tmp_path / 'int8.onnx'))
    rounded = [weight for weight in model.graph.initializer if weight.data_type == onnx.TensorProto.INT8]
    assert len(rounded) > 15 and all('.img_' in weight.name for weight in rounded)
    assert {node.domain for node in model.graph.node} <= {'', 'ai.onnx'}
    assert OnnxNetwork(tmp_path / 'int8.onnx').description == predictor.network.description
    exact, _ = predictor.step(frames[0].images, frames[0].rig, frames[0].pose, frames[0].timestamp)
    integers = OnnxPredictor(tmp_path / 'int8.onnx', threads=1)
    found, _ = integers.step(frames[0].images, frames[0].rig, frames[0].pose, frames[0].timestamp)
    assert 0 < np.abs(found.scores[:20] - exact.scores[:20]).max() < 0.1
    nearest = torch.cdist(exact.bboxes_3d.tensor[:10, :3], found.bboxes_3d.tensor[:, :3]).min(dim=1).values
    assert nearest.max() < 1.0
