"""The map on own cameras: it is the detector's own, lies where its protocol says, and is drawn and written there."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.dataset import pseudo_collate

from bevformer_plugin.datasets.infos import load_infos
from bevformer_plugin.deployment import PredictedMap, Rig, StreamPredictor
from bevformer_plugin.deployment.frame_predictor import ModelInputs
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import read_map, read_map_protocol
from bevformer_plugin.maps import find_protocol
from bevformer_plugin.visualization.bev_view import LIMIT
from bevformer_plugin.visualization.frame_figure import BEV_SIZE, GAP, WIDTH
from tests.deployment.maps import JOINT, MAP, map_config, seeded
from tests.deployment.rigs import recorded_frame
from tests.helpers.processes import run_tool

FRAMES = 3  # of the first validation scene


@pytest.fixture(scope='module')
def drive(synthetic_root, info_files):
    """The first frames of a validation scene, by token."""
    infos = load_infos(info_files['mini_val'], root=synthetic_root)['data_list'][:FRAMES]
    return {info['token']: recorded_frame(info, synthetic_root) for info in infos}


@pytest.fixture(scope='module')
def joint_file(tmp_path_factory):
    """A checkpoint of the joint model with weights from a seed."""
    path = tmp_path_factory.mktemp('joint') / 'joint.pth'
    torch.save({'state_dict': seeded(map_config()).state_dict()}, path)
    return path


def predictor_of(detector, cfg):
    return StreamPredictor(detector, ModelInputs.from_config(cfg), optimize=False)


@pytest.mark.parametrize(('config', 'protocol'), [(JOINT, 'lss'), (JOINT, 'cvt'), (MAP, 'petrv2')])
def test_it_is_the_map_of_the_detector(drive, world_options, config, protocol):
    cfg = map_config(config, protocol, **world_options)
    detector, dataset = seeded(cfg), DATASETS.build(cfg.test_dataloader.dataset)
    predictor = predictor_of(detector, cfg)
    channels = len(find_protocol(protocol).classes)
    for index, found in enumerate(predictor.stream(drive.values())):
        data = detector.data_preprocessor(pseudo_collate([dataset[index]]))
        (expected,) = detector.predict(data['inputs'], data['data_samples'])
        probabilities = found.map.probabilities
        assert probabilities.shape == (channels, 200, 200) and probabilities.dtype == np.float32
        assert 0.1 < (probabilities > 0.5).mean() < 0.9
        np.testing.assert_allclose(probabilities, expected.pred_map.data.numpy(), atol=1e-5)
        assert (len(found), found.classes) == ((0, ()) if config == MAP else (300, tuple(cfg.class_names)))


def test_it_is_the_map_that_the_tool_writes(drive, world_options, joint_file, tmp_path):
    evaluator = {f'test_evaluator.0.{key.rpartition(".")[2]}': value for key, value in world_options.items()} | {
        'test_evaluator.0.version': 'v1.0-mini',
        'test_dataloader.num_workers': 0,
    }
    options = [f'{key}={value}' for key, value in {**world_options, **evaluator}.items()]
    options.append('test_dataloader.persistent_workers=False')
    tool = run_tool('test', JOINT, joint_file, '--maps-out', tmp_path, '--cfg-options', *options)
    assert tool.returncode == 0, tool.output[-2000:]
    predictor = StreamPredictor.from_checkpoint(JOINT, joint_file, 'cpu', optimize=False)
    protocol = read_map_protocol(tmp_path)
    assert predictor.map_protocol is protocol
    for token, found in zip(drive, predictor.stream(drive.values()), strict=True):
        written = read_map(tmp_path, protocol, token)
        np.testing.assert_allclose(found.map.probabilities, written, atol=0.5 / 255 + 1e-5)
        assert (found.map.classes, found.map.frame) == (protocol.class_names, 'lidar')
        np.testing.assert_array_equal(found.map.of('lane_boundary'), found.map.probabilities[3])


LIDAR2EGO = np.array([[0.0, 1, 0, 0.94], [-1, 0, 0, 0], [0, 0, 1, 1.84], [0, 0, 0, 1]])  # nuScenes' mean
POSE = np.array([[0.0, -1, 0, 100], [1, 0, 0, 50], [0, 0, 1, 0], [0, 0, 0, 1]])  # looks along the global y axis


@pytest.mark.parametrize(
    ('name', 'frame', 'first', 'last'),
    [
        ('lss', 'ego', (-49.75, 49.75), (49.75, -49.75)),
        ('lss', 'lidar', (-49.75, -50.69), (49.75, 48.81)),
        ('cvt', 'global', (100 - 49.75, 50 - 49.75), (100 + 49.75, 50 + 49.75)),
        ('bevfusion', 'ego', (-48.81, 49.75), (50.69, -49.75)),
        ('bevfusion', 'lidar', (-49.75, -49.75), (49.75, 49.75)),
        ('bevfusion', 'global', (100 - 49.75, 50 - 48.81), (100 + 49.75, 50 + 50.69)),
    ],
)
def test_cells_lie_where_the_protocol_says(name, frame, first, last):
    """The first cell is the rear left one, the last the front right one."""
    protocol = find_protocol(name)
    found = PredictedMap(protocol, np.zeros((len(protocol.classes), 200, 200)), LIDAR2EGO, POSE)
    centers = found.cell_centers(frame)
    assert centers.shape == (200, 200, 2)
    np.testing.assert_allclose(centers[0, 0], first, atol=1e-9)
    np.testing.assert_allclose(centers[-1, -1], last, atol=1e-9)


def test_cells_without_a_pose_and_unknown_names():
    found = PredictedMap(find_protocol('cvt'), np.zeros((2, 200, 200)), LIDAR2EGO, None)
    np.testing.assert_allclose(found.cell_centers()[0, 0], (-49.75, 49.75), atol=1e-9)
    with pytest.raises(InputError, match="cells in the frame 'global' need the vehicle's pose"):
        found.cell_centers('global')
    with pytest.raises(InputError, match="unknown frame 'CAM_FRONT' of a map; known are ego, lidar, global"):
        found.cell_centers('CAM_FRONT')
    with pytest.raises(InputError, match="'cvt' have no class 'lane': choose one of vehicles, road"):
        found.of('lane')


@pytest.fixture(scope='module')
def joint(drive):
    """What the joint model finds in one frame."""
    cfg = map_config()
    return next(predictor_of(seeded(cfg), cfg).stream(drive.values()))


def in_the_view_from_above(found, images):
    """The mean place (x, y) in the LiDAR's frame of what a map adds to a picture, and how much of it."""
    bare, drawn = (one.draw(images, 1.0) for one in (replace(found, map=None), found))
    left, top = (WIDTH - BEV_SIZE) // 2, drawn.shape[0] - BEV_SIZE - GAP
    changed = (bare != drawn).any(axis=-1)[top:-GAP, left : left + BEV_SIZE]
    rows, columns = np.nonzero(changed)
    place = ((columns.mean() + 0.5) / BEV_SIZE * 2 * LIMIT - LIMIT, LIMIT - (rows.mean() + 0.5) / BEV_SIZE * 2 * LIMIT)
    return place, changed.mean()


@pytest.mark.parametrize(('name', 'ahead'), [('lss', 20.0 - 0.94), ('bevfusion', 20.0)])
def test_it_is_drawn_where_it_lies(joint, drive, name, ahead):
    """An area 8 m wide, 20 m before the origin of the protocol's frame and 10 m to the right of it."""
    protocol, images = find_protocol(name), next(iter(drive.values())).images
    x, y = np.moveaxis(protocol.grid.cell_centers(), -1, 0)
    probabilities = np.zeros((len(protocol.classes), 200, 200), np.float32)
    probabilities[protocol.class_names.index('drivable_area')] = (np.abs(x - 10) < 4) & (np.abs(y - 20) < 4)
    rig = replace(joint.rig, lidar2ego=LIDAR2EGO)
    found = replace(joint, rig=rig, map=PredictedMap(protocol, probabilities, LIDAR2EGO, joint.ego2global))
    place, share = in_the_view_from_above(found, images)
    assert place == pytest.approx((10, ahead), abs=0.3)
    assert share == pytest.approx((8 / (2 * LIMIT)) ** 2, rel=0.15)


def test_vehicles_of_the_map_are_drawn_where_no_boxes_are(joint, drive):
    """Above the map of a joint model there are boxes; a model of the map alone has none."""
    protocol, images = find_protocol('paper'), next(iter(drive.values())).images
    probabilities = np.zeros((4, 200, 200), np.float32)
    probabilities[1, 100:120, 100:120] = 1
    found = replace(joint, map=replace(joint.map, protocol=protocol, probabilities=probabilities))
    bare, drawn = replace(found, map=None).draw(images, 1.0), found.draw(images, 1.0)
    view = np.s_[-BEV_SIZE - GAP : -GAP, (WIDTH - BEV_SIZE) // 2 : (WIDTH + BEV_SIZE) // 2]
    assert (bare[view] == drawn[view]).all() and (bare != drawn).any()  # the legend
    alone = replace(found.above(1.0), classes=())
    assert (alone.draw(images)[view] != drawn[view]).any(axis=-1).mean() > 0.005
    with pytest.raises(InputError, match='predicts a map and no boxes'):
        alone.to_nuscenes('token')


def test_models_without_a_map_have_none(drive):
    cfg = map_config()
    cfg.model.heads.map = None
    predictor = predictor_of(MODELS.build(cfg.model), cfg)
    found = next(predictor.stream(drive.values()))
    assert found.map is None and predictor.map_protocol is None and len(found) == 300
    assert 'map' not in found.to_dict()
    cfg.model.heads.detection = None
    with pytest.raises(InputError, match=r'neither boxes nor a map, its heads are perspective \(Perspective'):
        predictor_of(MODELS.build(cfg.model), cfg)


def test_the_tool_writes_and_draws_it(drive, joint_file, tmp_path):
    for frame in drive.values():
        for name, image in frame.images.items():
            path = tmp_path / 'drive' / name / f'{frame.timestamp!r}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image)
    next(iter(drive.values())).rig.to_file(tmp_path / 'rig.yaml')
    arguments = ['--frames', tmp_path / 'drive', '--rig', tmp_path / 'rig.yaml', '--out', tmp_path / 'out']
    tool = run_tool('predict', JOINT, joint_file, *arguments, '--no-optimize', '--device', 'cpu')
    assert tool.returncode == 0, tool.output[-2000:]
    assert f"3 maps by protocol 'paper' in {tmp_path}/out/maps" in tool.output
    lines = [json.loads(line) for line in (tmp_path / 'out' / 'detections.jsonl').read_text().splitlines()]
    assert [line['map'] for line in lines] == [f'maps/probabilities/{number:06d}.png' for number in range(FRAMES)]
    protocol = read_map_protocol(tmp_path / 'out' / 'maps')
    described = json.loads((tmp_path / 'out' / 'maps' / 'probabilities' / 'protocol.json').read_text())
    assert (described['frame'], described['extent']) == ('lidar', [-51.2, -51.2, 51.2, 51.2])
    predictor = StreamPredictor.from_checkpoint(JOINT, joint_file, 'cpu', optimize=False)
    rig = Rig.from_file(tmp_path / 'rig.yaml')
    alone = [replace(frame, rig=rig, pose=None, can_bus=None) for frame in drive.values()]
    for number, found in enumerate(predictor.stream(alone)):
        written = read_map(tmp_path / 'out' / 'maps', protocol, f'{number:06d}')
        np.testing.assert_allclose(found.map.probabilities, written, atol=0.5 / 255 + 1e-5)
