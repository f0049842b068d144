"""Exported files hold operators of ONNX alone, and give the results of the detector they were written from."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData

import bevformer_plugin
from bevformer_plugin.deployment import (
    HitBudget,
    ModelSurroundings,
    OnnxDescription,
    OnnxDetector,
    OnnxForm,
    OnnxNetwork,
    budget_for,
    export_onnx,
)
from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import boxes_to_old_convention, denormalize_boxes
from bevformer_plugin.models import BEVFormer, BEVHistory
from bevformer_plugin.weights import load_weights
from tests.deployment.exported.drives import drive, noise
from tests.helpers.repository import NANO_WEIGHTS
from tests.models.shrunk_configs import build_shrunk

pytestmark = pytest.mark.usefixtures('onnx_libraries')

IMAGE_HW = (64, 96)  # of the shrunk models, which need no padding
ONE_LAYER = {'model.bev_encoder.encoder.num_layers': 1, 'model.heads.detection.decoder.num_layers': 1}
TIE = 2e-5  # scores nearer to each other than this may change places
FIVE = ('CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT')


def surroundings(detector: BEVFormer, cameras: tuple[str, ...]) -> ModelSurroundings:
    """Made-up names."""
    classes = tuple(f'class {number}' for number in range(detector.heads['detection'].num_classes))
    return ModelSurroundings((IMAGE_HW[1], IMAGE_HW[0]), cameras, classes)


@pytest.fixture(scope='module')
def five_cameras(onnx_libraries: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[BEVFormer, OnnxNetwork]:
    """A small detector with deformable convolutions and five cameras, and its file for normalised images."""
    path = tmp_path_factory.mktemp('onnx') / 'five.onnx'
    detector = build_shrunk('bevformer_small', num_cameras=5, changes=ONE_LAYER).eval()
    budget = budget_for(detector, [drive(IMAGE_HW, 5)[0].lidar2img], IMAGE_HW)
    export_onnx(detector, path, surroundings(detector, FIVE), budget, OnnxForm(19, images='normalized'))
    return detector, OnnxNetwork(path)


def assert_same_boxes(found: InstanceData, expected: InstanceData) -> None:
    """The same boxes within a millimetre wherever no two scores tie."""
    scores = expected.scores_3d
    assert len(found.scores_3d) == len(scores)
    torch.testing.assert_close(found.scores_3d, scores, atol=1e-4, rtol=0)
    gap = (scores[:-1] - scores[1:]) > TIE
    alone = torch.cat([gap, gap.new_ones(1)]) & torch.cat([gap.new_ones(1), gap])
    assert alone.float().mean() > 0.3
    assert torch.equal(found.labels_3d[alone], expected.labels_3d[alone])
    difference = (found.bboxes_3d.tensor - expected.bboxes_3d.tensor)[alone].abs()
    difference[:, 6] = torch.atan2(difference[:, 6].sin(), difference[:, 6].cos()).abs()
    assert difference.max() < 1e-3


def shapes_of(values: Iterable) -> dict[str, list[int]]:
    """Sizes of inputs or outputs by name."""
    return {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in values}


def foreign_operators(path: Path) -> set[str]:
    """Domains other than ONNX's own, after onnx has checked the file."""
    import onnx

    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    assert not model.functions
    return {node.domain for node in model.graph.node} - {'', 'ai.onnx'}


@torch.no_grad()
def test_nano_over_eight_frames_and_a_change_of_scene(nano_file: Path, nano_config: Callable[..., Config]):
    """Through the real pipeline; each side keeps its own history."""
    cfg = nano_config()
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    detector = MODELS.build(cfg.model).eval()
    load_weights(detector, str(NANO_WEIGHTS))
    exported = OnnxDetector(nano_file)
    scenes = set()
    for index in range(2, 10):
        batch = pseudo_collate([dataset[index]])
        theirs = exported(**exported.data_preprocessor(batch), mode='predict')[0]
        found, bev = theirs.pred_instances_3d, exported.streams[theirs.scene_token].bev_embed
        data = detector.data_preprocessor(batch)
        (ours,) = detector.predict(data['inputs'], data['data_samples'])
        torch.testing.assert_close(bev, detector.streams[ours.scene_token].bev_embed, atol=1e-3, rtol=0)
        assert_same_boxes(found, ours.pred_instances_3d)
        scenes.add(ours.scene_token)
    assert len(scenes) == 2 and len(found.scores_3d) > 100


def test_the_file_is_plain_onnx_and_describes_itself(nano_file: Path, nano_config: Callable[..., Config]):
    import onnx

    assert foreign_operators(nano_file) == set()
    model = onnx.load(str(nano_file))
    assert [entry.version for entry in model.opset_import] == [18]
    samplings = [node for node in model.graph.node if node.op_type == 'GridSample']
    assert len(samplings) == 7  # turn, two slots of TSA, two levels of SCA, two layers of the decoder
    assert {attribute.s for node in samplings for attribute in node.attribute if attribute.name == 'mode'} == {
        b'bilinear'
    }
    assert not {'Loop', 'If', 'NonZero', 'SequenceConstruct'} & {node.op_type for node in model.graph.node}
    assert b'/site-packages/' not in nano_file.read_bytes()  # lines of code that the exporter notes
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    described, cfg = OnnxDescription.from_metadata(metadata, 'nano'), nano_config()
    assert described.to_metadata() == metadata
    assert described.bevformer_plugin == bevformer_plugin.__version__
    assert described.classes == tuple(cfg.class_names) and described.cameras == tuple(cfg.cameras)
    assert (described.image_size, described.padded_size) == ((320, 180), (320, 192))
    assert described.point_cloud_range == tuple(cfg.point_cloud_range)
    assert (described.images, described.bgr_to_rgb, described.can_bus) == ('raw', True, 'nearest')
    assert shapes_of(model.graph.input) == {
        'images': [6, 180, 320, 3],
        'prev_bev': [4096, 64],
        'use_prev_bev': [1],
        'motion': [18],
        'lidar2img': [6, 4, 4],
    }
    results = {'bev': [4096, 64], 'scores': [150, 10], 'boxes': [150, 10], 'overflow': [2]}
    assert shapes_of(model.graph.output) == results


@torch.no_grad()
def test_five_cameras_deformable_convolutions_and_opset_19(five_cameras: tuple[BEVFormer, OnnxNetwork]):
    detector, network = five_cameras
    ours = theirs = None
    for number, frame in enumerate(drive(IMAGE_HW, 5, frames=3, scene_starts=(0, 2))):
        images = noise((5, 3, *IMAGE_HW), number)
        encoded = detector.encode(images[None], [frame], [ours])
        outputs = detector.heads['detection'](encoded.bev_embed)
        raw, theirs = network.step(images, frame, theirs)
        (ours,) = encoded.histories()
        torch.testing.assert_close(theirs.bev_embed, encoded.bev_embed[0], atol=1e-3, rtol=0)
        torch.testing.assert_close(raw.scores, outputs.cls_scores[-1, 0], atol=1e-3, rtol=0)
        torch.testing.assert_close(raw.boxes, outputs.bbox_preds[-1, 0], atol=2e-3, rtol=0)
        assert theirs.frame is frame


@torch.no_grad()
def test_mlperf_names_shapes_and_convention(onnx_libraries: None, tmp_path: Path):
    """Run as the benchmark's reference runs its own file: tensors by their place, boxes in the published order."""
    import onnxruntime

    path = tmp_path / 'mlperf.onnx'
    cameras = tuple(f'CAM_{number}' for number in range(6))
    detector = build_shrunk('bevformer_tiny', changes=ONE_LAYER).eval()
    frames = drive(IMAGE_HW, frames=2)
    budget = budget_for(detector, [frames[0].lidar2img], IMAGE_HW)
    form = OnnxForm(profile='mlperf', images='normalized')
    export_onnx(detector, path, surroundings(detector, cameras), budget, form)
    assert foreign_operators(path) == set()
    session = onnxruntime.InferenceSession(str(path))
    assert [(value.name, value.shape) for value in session.get_inputs()] == [
        ('img', [1, 6, 3, *IMAGE_HW]),
        ('prev_bev', [120, 1, 32]),
        ('use_prev_bev', []),
        ('can_bus', [18]),
        ('lidar2img', [1, 6, 4, 4]),
    ]
    assert [value.shape for value in session.get_outputs()] == [[120, 1, 32], [1, 1, 20, 10], [1, 1, 20, 10], [2]]
    network, history, bev = OnnxNetwork(path), None, np.full((120, 1, 32), np.nan, np.float32)
    for number, frame in enumerate(frames):
        images = noise((6, 3, *IMAGE_HW), number)
        encoded = detector.encode(images[None], [frame], [history])
        outputs = detector.heads['detection'](encoded.bev_embed)
        delta = frame.ego2global - frames[0].ego2global
        turn = 7.5 * number
        can_bus = np.array([*delta[:3, 3], *frame.can_bus, np.deg2rad((350 + turn) % 360), turn - 360 * (turn > 10)])
        inputs = (
            images[None].numpy(),
            bev,
            np.float32(number),
            can_bus.astype(np.float32),
            frame.lidar2img[None].float(),
        )
        names = [value.name for value in session.get_inputs()]
        bev, classes, coords, overflow = session.run(None, dict(zip(names, map(np.asarray, inputs), strict=True)))
        assert not overflow.any()
        torch.testing.assert_close(torch.from_numpy(bev[:, 0]), encoded.bev_embed[0], atol=1e-3, rtol=0)
        torch.testing.assert_close(torch.from_numpy(classes), outputs.cls_scores, atol=1e-3, rtol=0)
        expected = boxes_to_old_convention(denormalize_boxes(outputs.bbox_preds[-1, 0]))
        found = denormalize_boxes(torch.from_numpy(coords[-1, 0]))
        distance = (found - expected).abs()
        distance[:, 6] = torch.atan2(distance[:, 6].sin(), distance[:, 6].cos()).abs()
        assert distance.max() < 5e-3
        raw, _ = network.step(images, frame, history)
        torch.testing.assert_close(raw.boxes, outputs.bbox_preds[-1, 0], atol=2e-3, rtol=0)
        (history,) = encoded.histories()


def test_a_rig_without_room_is_refused(five_cameras: tuple[BEVFormer, OnnxNetwork]):
    _, network = five_cameras
    frame, images = drive(IMAGE_HW, 5)[0], noise((5, 3, *IMAGE_HW), 0)
    network.step(images, frame, None)
    wide = frame.lidar2img.clone()
    wide[:, :2, :2] *= 0.3
    with pytest.raises(InputError, match=r'no room for the calibration of sample 1.0: a camera sees \d+ pillars'):
        network.step(images, replace(frame, lidar2img=wide), None)
    same = frame.lidar2img[:1].expand(5, 4, 4)
    with pytest.raises(InputError, match='5 cameras see one pillar, it was written for'):
        network.step(images, replace(frame, lidar2img=same), None)


def test_other_images_are_refused(five_cameras: tuple[BEVFormer, OnnxNetwork]):
    _, network = five_cameras
    frame = drive(IMAGE_HW, 5)[0]
    for images in (
        noise((6, 3, *IMAGE_HW), 0),
        noise((5, 3, 64, 64), 0),
        torch.zeros(5, 3, *IMAGE_HW, dtype=torch.uint8),
    ):
        with pytest.raises(InputError, match=r'the file was written for \(5, 3, 64, 96\) torch.float32'):
            network.step(images, frame, None)


def test_history_counts_as_in_the_detector(five_cameras: tuple[BEVFormer, OnnxNetwork]):
    """Not from another scene, from later, or from long ago; NaN in it then does no harm."""
    _, network = five_cameras
    frame, images = drive(IMAGE_HW, 5)[3], noise((5, 3, *IMAGE_HW), 0)
    alone, _ = network.step(images, frame, None)
    bev = torch.full((120, 32), torch.nan)
    for other in (replace(frame, scene='other'), frame, replace(frame, timestamp=-60.0)):
        found, after = network.step(images, frame, BEVHistory(bev, other))
        assert torch.equal(found.scores, alone.scores) and after is not None
    used, after = network.step(images, frame, BEVHistory(bev, replace(frame, timestamp=frame.timestamp - 0.5)))
    assert after is None and used.scores.isnan().any()


@pytest.mark.parametrize(
    ('form', 'message'),
    [
        (dict(opset=20), 'opset is one of 18, 19, got 20: .* nearest without a word'),
        (dict(opset=16), 'opset is one of 18, 19, got 16'),
        (dict(profile='tensorrt'), "profile is one of default, mlperf, got 'tensorrt'"),
        (dict(images='jpeg'), "images is raw or normalized, got 'jpeg'"),
        (dict(profile='mlperf'), 'give --images normalized'),
    ],
)
def test_forms_that_do_not_exist(form: dict, message: str):
    with pytest.raises(InputError, match=message):
        OnnxForm(**form)


def test_cameras_without_names_are_refused(tmp_path: Path):
    detector = build_shrunk('bevformer_tiny')
    with pytest.raises(InputError, match='num_cameras=6, got 5 names of cameras'):
        export_onnx(detector, tmp_path / 'a.onnx', surroundings(detector, FIVE), HitBudget(9, 2), OnnxForm())
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_exports(tmp_path: Path):
    import onnx

    with pytest.raises(FileNotFoundError, match=r'no\.onnx does not exist'):
        OnnxNetwork(tmp_path / 'no.onnx')
    (tmp_path / 'broken.onnx').write_bytes(b'no protobuf')
    with pytest.raises(InputError, match=r'onnxruntime cannot run .*broken\.onnx'):
        OnnxNetwork(tmp_path / 'broken.onnx')
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node('Relu', ['x'], ['y'])], 'g', [value('x', 1, [1])], [value('y', 1, [1])]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 18)], ir_version=8)
    onnx.save(model, str(tmp_path / 'foreign.onnx'))
    with pytest.raises(InputError, match=r'foreign\.onnx was not written by tools/export\.py'):
        OnnxNetwork(tmp_path / 'foreign.onnx')


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import sys

    detector = build_shrunk('bevformer_tiny')
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    names = tuple(f'CAM_{number}' for number in range(6))
    with pytest.raises(InputError, match=r'writing ONNX files needs onnxscript.*bevformer_plugin\[onnx\]'):
        export_onnx(detector, tmp_path / 'a.onnx', surroundings(detector, names), HitBudget(9, 2), OnnxForm())
    (tmp_path / 'a.onnx').touch()
    with pytest.raises(InputError, match=r'running ONNX files needs onnxruntime'):
        OnnxNetwork(tmp_path / 'a.onnx')
