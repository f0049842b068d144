"""StreamPredictor gives what tools/test.py gives, with explicit state, and masks cameras without an image."""

import datetime
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS

from bevformer_plugin.configuration import load_config
from bevformer_plugin.datasets.infos import load_infos
from bevformer_plugin.deployment import Rig, StreamPredictor, StreamState
from bevformer_plugin.deployment.frame_predictor import ModelInputs
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import evaluate_results, write_results
from bevformer_plugin.geometry import pillar_points, project_to_cameras
from bevformer_plugin.layers import PillarHits
from tests.deployment.rigs import recorded_frame
from tests.helpers.processes import run_tool
from tests.helpers.repository import CONFIGS, NANO_WEIGHTS

NANO = CONFIGS / 'bevformer_nano.py'


@pytest.fixture(scope='module')
def predictor():
    return StreamPredictor.from_checkpoint(NANO, NANO_WEIGHTS, device='cpu', optimize=False)


@pytest.fixture(scope='module')
def drive(synthetic_root, info_files):
    """The frames of two validation scenes, by their tokens, in the order of the info file."""
    infos = load_infos(info_files['mini_val'], root=synthetic_root)['data_list']
    return {info['token']: recorded_frame(info, synthetic_root) for info in infos}


@pytest.fixture(scope='module')
def streamed(predictor, drive):
    """What a predictor finds in one scene after the other, by token."""
    return dict(zip(drive, predictor.stream(drive.values()), strict=True))


def step(predictor, frame, state=None):
    return predictor.step(frame.images, frame.rig, frame.pose, frame.timestamp, state, can_bus=frame.can_bus)


def assert_same(found, expected, tolerance=1e-5):
    assert len(found) == len(expected)
    assert torch.allclose(found.bboxes_3d.tensor, expected.bboxes_3d.tensor, atol=tolerance, rtol=0)
    assert np.abs(found.scores - expected.scores).max() <= tolerance
    assert (found.labels == expected.labels).all()


def test_it_gives_what_the_tool_gives(streamed, synthetic_root, info_files, tmp_path):
    options = [f'test_dataloader.dataset.{key}' for key in (f'data_root={synthetic_root}',)]
    options += [f'test_dataloader.dataset.ann_file={info_files["mini_val"]}', 'test_dataloader.num_workers=0']
    options += ['test_dataloader.persistent_workers=False', f'test_evaluator.data_root={synthetic_root}']
    options += [f'test_evaluator.ann_file={info_files["mini_val"]}', 'test_evaluator.version=v1.0-mini']
    tool = run_tool('test', NANO, NANO_WEIGHTS, '--out', tmp_path / 'results.json', '--cfg-options', *options)
    assert tool.returncode == 0, tool.output[-2000:]
    expected = json.loads((tmp_path / 'results.json').read_text())['results']
    own = {token: detections.to_nuscenes(token) for token, detections in streamed.items()}
    assert own.keys() == expected.keys() and any(own.values())
    for token, entries in own.items():
        assert [entry['detection_name'] for entry in entries] == [other['detection_name'] for other in expected[token]]
        for entry, other in zip(entries, expected[token], strict=True):
            for key in ('translation', 'size', 'velocity', 'detection_score'):
                assert entry[key] == pytest.approx(other[key], abs=1e-5)
    write_results(own, tmp_path / 'own' / 'results.json')
    scores = evaluate_results(
        str(tmp_path / 'own' / 'results.json'), str(synthetic_root), 'v1.0-mini', infos=str(info_files['mini_val'])
    )
    of_tool = json.loads((tmp_path / 'metrics_summary.json').read_text())
    assert (scores['nd_score'], scores['mean_ap']) == pytest.approx(
        (of_tool['nd_score'], of_tool['mean_ap']), abs=1e-6
    )  # the errors that are averaged in NDS follow the boxes, whose last digits two processes round differently


def test_two_streams_interleaved_do_not_meet(predictor, drive, streamed):
    scenes = {}
    for token, frame in drive.items():
        scenes.setdefault(frame.scene, []).append(token)
    first, second = scenes.values()
    states = [None, predictor.reset()]
    for tokens in zip(first, second, strict=True):
        for stream, token in enumerate(tokens):
            found, states[stream] = step(predictor, drive[token], states[stream])
            assert_same(found, streamed[token], 0)


def test_state_is_what_came_in_and_stays_as_it_was(predictor, drive):
    one, two = list(drive.values())[:2]
    _, state = step(predictor, one)
    kept = state.history.bev_embed.clone()
    again = [step(predictor, two, state)[0] for _ in range(2)]
    assert_same(*again, 0)
    assert torch.equal(state.history.bev_embed, kept)
    assert np.abs(step(predictor, two)[0].scores - again[0].scores).max() > 1e-3  # history matters


def without(frame, *names):
    return replace(frame, images={**frame.images, **dict.fromkeys(names)})


def test_a_masked_camera_is_the_model_without_its_hits(predictor, drive):
    frame = next(iter(drive.values()))
    masked, _ = step(predictor, without(frame, 'CAM_FRONT', 'CAM_BACK_LEFT'))
    packed, own = predictor.prepare(frame.images, frame.rig, frame.pose, frame.timestamp, frame.can_bus)
    detector, imgs = predictor.detector, predictor.normalized(packed)
    points = pillar_points(detector.bev_encoder.grid, detector.bev_encoder.encoder.num_points_in_pillar, 'cpu')
    reference_points, visible = project_to_cameras(points, own.lidar2img[None].float(), imgs.shape[-2:])
    cameras = list(predictor.inputs.cameras)
    visible[:, [cameras.index('CAM_FRONT'), cameras.index('CAM_BACK_LEFT')]] = False
    with torch.no_grad():
        hits = PillarHits.from_projection(reference_points, visible)
        expected, _ = predictor.run_network(imgs, own, None, hits)
    assert torch.allclose(masked.bboxes_3d.tensor, expected.boxes, atol=1e-5, rtol=0)
    assert np.abs(masked.scores - expected.scores.numpy()).max() <= 1e-5
    whole, _ = step(predictor, frame)
    assert np.abs(whole.scores - masked.scores).max() > 1e-2


def test_a_rig_may_lack_cameras(predictor, drive):
    """A rig of five cameras is one of six of which one is masked; so is a rig of one."""
    frame = next(iter(drive.values()))
    for kept in (list(frame.images)[1:], ['CAM_FRONT']):
        gone = [name for name in frame.images if name not in kept]
        rig = Rig({name: frame.rig.cameras[name] for name in kept}, frame.rig.lidar2ego)
        images = {name: frame.images[name] for name in kept}
        assert_same(
            step(predictor, replace(frame, images=images, rig=rig))[0], step(predictor, without(frame, *gone))[0]
        )


@pytest.mark.parametrize('count', [5, 1])
def test_models_of_other_numbers_of_cameras(count, drive):
    frame = next(iter(drive.values()))
    names = list(frame.images)[:count]
    options = {'model.num_cameras': count, 'test_dataloader.dataset.cameras': names}
    cfg = load_config(NANO, {**options, 'train_dataloader.dataset.cameras': names})
    predictor = StreamPredictor(MODELS.build(cfg.model), ModelInputs.from_config(cfg), optimize=False)
    rig = Rig({name: frame.rig.cameras[name] for name in names}, frame.rig.lidar2ego)
    found, state = step(predictor, replace(frame, rig=rig, images={name: frame.images[name] for name in names}))
    assert len(found) == 300 and np.isfinite(found.scores).all()
    assert state.view.lidar2img.shape == (count, 4, 4)


def test_images_of_several_sizes_are_brought_to_the_models(predictor, drive):
    """Enlarged by whole numbers and shrunk again, images and calibration are nearly what they were."""
    frame = next(iter(drive.values()))
    small = {name: cv2.resize(image, (320, 180)) for name, image in frame.images.items()}
    large, rig = dict(small), frame.rig.resized((320, 180))
    cameras = dict(rig.cameras)
    for name, factor in (('CAM_FRONT', 2), ('CAM_BACK', 3)):
        size = (320 * factor, 180 * factor)
        large[name] = cv2.resize(small[name], size, interpolation=cv2.INTER_NEAREST)
        cameras[name] = rig.cameras[name].resized(size)
    found, _ = step(predictor, replace(frame, images=large, rig=Rig(cameras, rig.lidar2ego)))
    expected, _ = step(predictor, replace(frame, images=small, rig=rig))
    assert_same(found.above(0.3), expected.above(0.3), 2e-2)


def test_hits_of_a_rig_that_does_not_change_are_kept(predictor, drive):
    one, two = list(drive.values())[:2]
    _, first = step(predictor, one)
    kept, second = step(predictor, replace(two, rig=one.rig), first)
    assert second.view is first.view
    assert_same(kept, step(predictor, replace(two, rig=one.rig), StreamState(first.history))[0], 0)
    _, moved = step(predictor, two, first)
    assert moved.view is not first.view


def test_planar_poses_are_matrices_on_flat_ground(predictor, drive):
    one, two = list(drive.values())[:2]

    def planar(frame):
        return frame.pose[0, 3], frame.pose[1, 3], np.arctan2(frame.pose[1, 0], frame.pose[0, 0])

    _, state = step(predictor, one)
    _, planar_state = step(predictor, replace(one, pose=planar(one)))
    found, _ = step(predictor, replace(two, pose=planar(two)), planar_state)
    assert_same(found, step(predictor, two, state)[0])


def test_without_a_pose_every_frame_is_alone(predictor, drive):
    one, two = (replace(frame, pose=None) for frame in list(drive.values())[:2])
    _, state = step(predictor, one)
    assert state.history is None
    found, _ = step(predictor, two, state)
    assert_same(found, step(predictor, two)[0], 0)
    with pytest.raises(InputError, match="frame 'global' need the vehicle's pose"):
        found.boxes_in('global')


@pytest.mark.slow
def test_optimised_it_finds_the_same_objects(predictor, drive):
    """By default it computes in bfloat16 where the device does; compiling takes half a minute."""
    frame = next(iter(drive.values()))
    exact = step(predictor, frame)[0].above(0.3)
    found = StreamPredictor.from_checkpoint(NANO, NANO_WEIGHTS, 'cpu')
    near = step(found, frame)[0].above(0.3)
    distances = np.linalg.norm(exact.boxes_in().centers[:, None] - near.boxes_in().centers[None], axis=-1)
    assert np.median(distances.min(1)) < 0.2


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda f: {'images': {k: v for k, v in f.images.items() if k != 'CAM_BACK'}},
            'no image of CAM_BACK: give None',
        ),
        (lambda f: {'images': {**f.images, 'ROOF': f.images['CAM_BACK']}}, 'images of ROOF came, which the rig'),
        (lambda f: {'images': dict.fromkeys(f.images)}, 'no camera has an image'),
        (lambda f: {'images': {**f.images, 'CAM_BACK': 'back.jpg'}}, 'image of CAM_BACK is .* uint8 .*got str'),
        (lambda f: {'images': {**f.images, 'CAM_BACK': f.images['CAM_BACK'] / 255}}, 'uint8 .*got float64 of shape'),
        (
            lambda f: {'images': {**f.images, 'CAM_BACK': f.images['CAM_BACK'][..., 0]}},
            r'got uint8 of shape \(112, 200\)',
        ),
        (
            lambda f: {'images': {**f.images, 'CAM_BACK': f.images['CAM_BACK'][::2]}},
            r'CAM_BACK is 200 x 56 .*rig.resized',
        ),
        (
            lambda f: {'rig': Rig({'left': f.rig.cameras['CAM_FRONT_LEFT']}), 'images': {}},
            'left looks 5. degrees to the left of straight ahead. The model knows CAM_FRONT,',
        ),
        (
            lambda f: {
                'rig': Rig({**f.rig.cameras, 'CAM_BACK': replace(f.rig.cameras['CAM_BACK'], camera2ego=2 * np.eye(4))})
            },
            'camera2ego of CAM_BACK is no rotation',
        ),
        (lambda f: {'pose': np.eye(3)}, r'the pose is a \(4, 4\) matrix ego2global or \(x, y, yaw\), got array'),
        (lambda f: {'pose': 'here'}, "the pose is .* got 'here'"),
        (lambda f: {'pose': (0, np.nan, 0)}, 'the pose holds numbers that are not finite'),
        (lambda f: {'pose': f.pose.T}, 'the pose is no rotation with a translation'),
        (lambda f: {'timestamp': None}, 'a frame with a pose needs its timestamp'),
        (lambda f: {'timestamp': float('nan')}, 'timestamp is a number of seconds, got nan'),
        (lambda f: {'timestamp': datetime.datetime(2020, 1, 1)}, r'got datetime.*: give its timestamp\(\)'),
        (lambda f: {'timestamp': np.timedelta64(5, 's')}, 'timestamp is a number of seconds, got'),
        (lambda f: {'timestamp': True}, 'timestamp is a number of seconds, got True'),
        (lambda f: {'timestamp': 10**400}, 'looks like micro- or nanoseconds'),
        (lambda f: {'images': list(f.images.values())}, 'images are a mapping of camera names to arrays, got list'),
        (lambda f: {'rig': 'rig.yaml'}, 'rig is a Rig of cameras, got str: Rig.from_file'),
        (lambda f: {'timestamp': '12:30'}, "timestamp is a number of seconds, got '12:30'"),
        (lambda f: {'timestamp': f.timestamp * 1e6}, 'looks like micro- or nanoseconds'),
        (lambda f: {'timestamp': f.timestamp - 3600}, 'time runs backwards: .*state=None'),
        (lambda f: {'can_bus': np.zeros(18)}, r'can_bus .* has shape \(18,\), not \(13,\)'),
    ],
)
def test_bad_input_is_refused_at_the_door(predictor, drive, change, message):
    before, frame = list(drive.values())[:2]
    _, state = step(predictor, before)
    with pytest.raises(InputError, match=message):
        step(predictor, replace(frame, **change(frame)), state)


@pytest.mark.parametrize('state', [(None, StreamState()), {}, np.zeros(3)])
def test_what_is_no_state_is_refused(predictor, drive, state):
    with pytest.raises(InputError, match=r'state is the second of the two that step returns, or None .* got '):
        step(predictor, next(iter(drive.values())), state)


def test_the_state_of_another_model_is_refused(predictor, drive):
    one, two = list(drive.values())[:2]
    _, state = step(predictor, one)
    foreign = replace(state, history=replace(state.history, bev_embed=state.history.bev_embed[:2500]))
    with pytest.raises(InputError, match=r'that of another model: it holds a BEV of 2500 cells .* one of 4096 cells'):
        step(predictor, two, foreign)


def test_a_stream_is_of_frames(predictor, drive):
    frame = next(iter(drive.values()))
    with pytest.raises(InputError, match='takes a sequence of StreamFrame objects, got StreamFrame'):
        next(predictor.stream(frame))
    with pytest.raises(InputError, match=r'is a StreamFrame\(images, rig, pose, timestamp\), got tuple'):
        next(predictor.stream([(frame.images, frame.rig)]))


@pytest.mark.parametrize('device', ['gpu', 'cuda:99', ''])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(InputError, match=f'this machine has no device {device!r}'):
        StreamPredictor.from_checkpoint(NANO, NANO_WEIGHTS, device, optimize=False)


def test_checkpoints_of_other_models_and_configs_without_names_are_refused(tmp_path):
    with pytest.raises(InputError, match='was trained with other settings'):
        StreamPredictor.from_checkpoint(CONFIGS / 'bevformer_tiny.py', NANO_WEIGHTS, 'cpu', optimize=False)
    child = tmp_path / 'child.py'
    child.write_text(f'_base_ = [{str(NANO)!r}]\ntest_dataloader = dict(dataset=dict(cameras=None))\n')
    with pytest.raises(InputError, match=r'test_dataloader\.dataset\.cameras of the config names none'):
        StreamPredictor.from_checkpoint(child, NANO_WEIGHTS, 'cpu', optimize=False)


def test_boxes_are_the_same_object_in_every_frame(streamed, drive):
    """A box's corners, brought from each frame of reference into the vehicle's by the rig and pose, agree."""
    token = list(drive)[1]
    found, frame = streamed[token].above(0.2), drive[token]
    assert len(found) > 3
    ego = found.boxes_in('ego')
    poses = {'lidar': frame.rig.lidar2ego, 'global': np.linalg.inv(frame.pose)}
    poses.update({name: camera.camera2ego for name, camera in frame.rig.cameras.items()})
    for name, pose in poses.items():
        other = found.boxes_in(name)
        assert other.corners @ pose[:3, :3].T + pose[:3, 3] == pytest.approx(ego.corners, abs=1e-6)
        assert other.velocities @ pose[:3, :3].T == pytest.approx(ego.velocities, abs=1e-6)
        assert (other.sizes == ego.sizes).all()
    lidar = found.boxes_in('lidar')
    assert lidar.corners.min(1) == pytest.approx(found.bboxes_3d.corners.numpy().min(1), abs=1e-4)
    assert lidar.yaws == pytest.approx(np.angle(np.exp(1j * found.bboxes_3d.yaw.numpy())), abs=1e-5)


def test_detections_become_json_and_pictures(predictor, streamed, drive, tmp_path):
    token = list(drive)[1]
    found = streamed[token].above(0.3)
    found.save(tmp_path / 'found.json', 'global')
    read = json.loads((tmp_path / 'found.json').read_text())
    assert (read['frame'], read['timestamp'], len(read['objects'])) == ('global', drive[token].timestamp, len(found))
    assert read['objects'][0]['center'] == pytest.approx(found.boxes_in('global').centers[0])
    assert [entry['name'] for entry in read['objects']] == list(found.names)
    bare = found.draw(drive[token].images, 1.0)
    drawn = found.draw(drive[token].images, 0.3)
    assert drawn.shape == bare.shape and (drawn != bare).any(-1).sum() > 1000
    with pytest.raises(InputError, match='no image to draw into'):
        found.draw({})
    with pytest.raises(
        InputError, match="unknown frame 'CAM'; known are ego, lidar, global and the cameras CAM_FRONT"
    ):
        found.boxes_in('CAM')
    for score in (30, '0.3', None):
        with pytest.raises(InputError, match='score threshold'):
            found.above(score)
    images = drive[token].images
    for other, message in (
        (list(images.values()), 'mapping of camera names to arrays, got list'),
        ({name: image[::2] for name, image in images.items()}, 'is 200 x 56 pixels, its calibration is for 200 x 112'),
        ({name: image / 255 for name, image in images.items()}, 'uint8 .*got float64'),
    ):
        with pytest.raises(InputError, match=message):
            found.draw(other)
    kept, _ = predictor.step(images, drive[token].rig, None, np.int64(5))
    assert json.loads(json.dumps(kept.above(1.0).to_dict()))['timestamp'] == 5
    nothing = found.above(1.0)
    assert len(nothing) == 0 and nothing.to_dict()['objects'] == [] and nothing.to_nuscenes('token') == []


def test_a_model_with_a_map_detects_without_knowing_the_true_one(drive):
    cfg = load_config(CONFIGS / 'bevformer_nano_joint.py')
    predictor = StreamPredictor(MODELS.build(cfg.model), ModelInputs.from_config(cfg), optimize=False)
    found, _ = step(predictor, next(iter(drive.values())))
    assert len(found) == 300 and np.isfinite(found.scores).all()
