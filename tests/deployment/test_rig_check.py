"""Faults planted one at a time into real, simulated and drawn rigs, and rigs without any."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest

from bevformer_plugin.deployment import FAULTS, Camera, Rig, check_rig
from bevformer_plugin.deployment.camera import pinhole
from bevformer_plugin.errors import InputError
from tests.deployment import planted_faults
from tests.deployment.planted_faults import OF_ONE_CAMERA, exchange, is_visible, plant, turn_towards
from tests.deployment.rigs import camera_pose, other_rigs, rendered_drive, simulated_rigs

SIMULATED, OTHERS = simulated_rigs(20), other_rigs(24)
# The shares of the mistakes that are named in drawn rigs, whose cameras may look down by 15 degrees. Where one is not,
# another mistake leaves the camera as plausible as this one; angles in degrees may also leave it plausible as it is.
NAMED_IN_OTHER_RIGS = {
    'transposed rotation': 0.95,
    'inverted': 0.95,
    'z backward': 0.9,
    'xyzw read as wxyz': 0.75,
    'wxyz read as xyzw': 0.75,
    'rotation vector in degrees': 0.8,
    'Euler angles in degrees': 0.75,
}
NAMED_IN_SIMULATED_RIGS = {'Euler angles in degrees': 0.65}


def planted(rigs: list[Rig], mistake: str) -> Iterator[tuple[Rig, str]]:
    """Each rig with the mistake in every other camera (in turn) that it changes something about, and the camera."""
    change = OF_ONE_CAMERA[mistake][1]
    for number, rig in enumerate(rigs):
        for name, camera in list(rig.cameras.items())[number % min(2, len(rig.cameras)) :: 2]:
            if is_visible(camera, change(camera)):
                yield plant(rig, name, change), name


def faults_of(*arguments, **named) -> list[tuple[str | None, str]]:
    return [(finding.camera, finding.fault) for finding in check_rig(*arguments, **named)]


def share_named(rigs: list[Rig], mistake: str) -> float:
    """The share of planted mistakes that are found as what they are, with nothing else found."""
    fault = OF_ONE_CAMERA[mistake][0]
    return float(np.mean([faults_of(rig) == [(name, fault)] for rig, name in planted(rigs, mistake)]))


@pytest.mark.parametrize('rig', [*SIMULATED, *OTHERS])
def test_nothing_is_found_in_an_unharmed_rig(rig):
    assert check_rig(rig) == []


@pytest.mark.parametrize('mistake', OF_ONE_CAMERA)
def test_mistakes_in_simulated_rigs_are_named(mistake):
    share = share_named(SIMULATED, mistake)
    print(f'{mistake}: {share:.3f} of {len(list(planted(SIMULATED, mistake)))}')
    assert share >= NAMED_IN_SIMULATED_RIGS.get(mistake, 1.0)


@pytest.mark.parametrize('mistake', OF_ONE_CAMERA)
def test_mistakes_in_rigs_of_other_vehicles_are_named(mistake):
    share = share_named(OTHERS, mistake)
    print(f'{mistake}: {share:.3f} of {len(list(planted(OTHERS, mistake)))}')
    assert share >= NAMED_IN_OTHER_RIGS.get(mistake, 1.0)


@pytest.mark.parametrize('mistake', [name for name in OF_ONE_CAMERA if name != 'Euler angles in degrees'])
def test_mistakes_in_the_real_rig_are_named(drives, mistake):
    rigs = [drive.rig for drive in drives.values()]
    print(f'{mistake}: of {len(list(planted(rigs, mistake)))}')
    assert share_named(rigs, mistake) == 1


def test_a_mistake_made_with_all_cameras_is_named_for_each():
    for mistake in ('transposed matrix', 'inverted', 'x forward, z up', 'z backward', 'vehicle y flipped'):
        fault, change = OF_ONE_CAMERA[mistake]
        for rig in SIMULATED:
            broken = replace(rig, cameras={name: change(camera) for name, camera in rig.cameras.items()})
            assert faults_of(broken) == [(name, fault) for name in rig.cameras]


@pytest.mark.parametrize('rig', [SIMULATED[0], SIMULATED[1], *OTHERS[1:6]])
def test_exchanged_cameras_are_named(rig):
    for first, second in combinations(rig.cameras, 2):
        [finding] = check_rig(exchange(rig, first, second))
        assert (finding.fault, {finding.camera, finding.other_camera}) == ('swapped_cameras', {first, second})


@pytest.mark.parametrize('rig', [SIMULATED[0], SIMULATED[1], *OTHERS[1:6]])
def test_two_cameras_of_one_direction_are_named(rig):
    for turned, other in permutations(rig.cameras, 2):
        [finding] = check_rig(turn_towards(rig, turned, other))
        assert (finding.fault, {finding.camera, finding.other_camera}) == ('same_direction', {turned, other})


def test_pairs_of_the_real_rig_are_named(drives):
    for drive in drives.values():
        assert check_rig(drive.rig) == []
        for first, second in combinations(drive.rig.cameras, 2):
            [swapped] = check_rig(exchange(drive.rig, first, second))
            [same] = check_rig(turn_towards(drive.rig, first, second))
            assert (swapped.fault, same.fault) == ('swapped_cameras', 'same_direction')


def test_a_rig_with_left_and_right_exchanged_is_left_handed():
    mirror = np.diag([1.0, -1, 1, 1])
    flip = np.diag([-1.0, 1, 1, 1])
    for rig in SIMULATED:
        cameras = {
            name: replace(camera, camera2ego=mirror @ camera.camera2ego @ flip) for name, camera in rig.cameras.items()
        }
        assert faults_of(replace(rig, cameras=cameras)) == [(None, 'left_handed')]


@pytest.mark.parametrize('rig', [*SIMULATED[:5], *OTHERS[2:6]])
def test_a_rig_in_the_frame_of_a_lidar_is_named(rig):
    assert faults_of(rig.moved(np.linalg.inv(rig.lidar2ego))) == [(None, 'vehicle_axes')]


def camera(angles=(0.0, 0.0, 0.0), position=(1.5, 0.0, 1.5), focal=1200.0, size=(1600, 900)) -> Camera:
    return Camera(pinhole(focal, focal, size[0] / 2, size[1] / 2), camera_pose(angles, position), size)


@pytest.mark.parametrize(
    'cameras',
    [
        {'front': camera(), 'front_tele': camera(focal=5000.0)},
        {'stereo_left': camera(position=(1.5, 0.3, 1.5)), 'stereo_right': camera(position=(1.5, -0.3, 1.5))},
        {'front': camera(angles=(0, 55, 0))},
        {'front_right': camera(angles=(-50, 55, 0))},
        {'front': camera(position=(6.0, 0.0, 3.2))},
        {'front': camera(size=(1550, 2048))},
        {'a': camera(), 'b': camera(angles=(120, 0, 0)), 'c': camera(angles=(-120, 0, 0))},
        {
            'front_left': camera(position=(1.5, 0.3, 1.5)),
            'front_right': camera(position=(1.5, -0.3, 1.5), focal=800.0),
        },
    ],
    ids=['tele', 'stereo', 'steep', 'steep to the side', 'truck', 'upright image', 'names of no direction', 'pair'],
)
def test_unusual_cameras_are_left_alone(cameras):
    assert check_rig(Rig(cameras)) == []


def test_images_cut_at_the_top_are_left_alone():
    """As those of models that take 704 x 256 pixels: 396 rows of which the upper 140 are gone."""
    resized = camera().resized((704, 396))
    shifted = resized.intrinsics - np.array([[0, 0, 0], [0, 0, 140.0], [0, 0, 0]])
    assert check_rig(Rig({'front': Camera(shifted, resized.camera2ego, (704, 256))})) == []


def test_what_no_usual_mistake_explains_is_said_so():
    assert faults_of(Rig({'front': camera(angles=(0, 0, 90))})) == [('front', 'tilted')]
    assert faults_of(Rig({'front': camera(angles=(90, 0, 0))})) == [('front', 'direction_against_name')]
    assert faults_of(Rig({'front': camera(focal=20000.0)})) == [('front', 'field_of_view')]
    stretched = camera().camera2ego @ np.diag([2.0, 1, 1, 1])
    assert faults_of(Rig({'front': replace(camera(), camera2ego=stretched)})) == [('front', 'not_rigid')]


def test_two_cameras_alike_without_names_are_found():
    rig = Rig({'a': camera(position=(1.5, 0.2, 1.5)), 'b': camera(position=(1.5, -0.2, 1.5))})
    [finding] = check_rig(rig)
    assert (finding.fault, finding.other_camera) == ('same_direction', 'a')
    assert 'stereo' in finding.message


def test_messages_name_the_camera_and_the_remedy():
    rig = SIMULATED[0]
    for mistake, (fault, change) in OF_ONE_CAMERA.items():
        findings = check_rig(plant(rig, 'CAM_BACK_LEFT', change))
        for finding in findings:
            assert finding.fault in FAULTS
            assert 'CAM_BACK_LEFT' in finding.message or 'camera2ego' in finding.message, mistake
        assert [finding.fault for finding in findings] == [fault] or mistake == 'Euler angles in degrees'


def test_images_of_another_size_are_named():
    images = {'CAM_FRONT': np.zeros((450, 800, 3), np.uint8), 'CAM_BACK': np.zeros((900, 1600, 3), np.uint8)}
    [finding] = check_rig(SIMULATED[0], images)
    assert (finding.camera, finding.fault) == ('CAM_FRONT', 'intrinsics_resolution')
    assert 'rig.resized((800, 450))' in finding.message


def test_a_size_that_two_checks_doubt_is_reported_once():
    rig = plant(SIMULATED[0], 'CAM_FRONT', lambda c: planted_faults.scaled(c, 0.5))
    images = {'CAM_FRONT': np.zeros((450, 800, 3), np.uint8)}
    assert faults_of(rig, images) == [('CAM_FRONT', 'intrinsics_resolution')]


def test_exchanged_images_of_a_real_drive_are_named(drives):
    drive = drives['scene-0103']
    numbers, images = drive.with_images()
    poses, first, second = drive.poses[numbers[:3]], 'CAM_FRONT_LEFT', 'CAM_BACK'
    swapped = [{**frame, first: frame[second], second: frame[first]} for frame in images[:3]]
    [finding] = check_rig(drive.rig, swapped, poses)
    assert (finding.fault, {finding.camera, finding.other_camera}) == ('swapped_cameras', {first, second})


def test_real_images_fit_their_poses_and_not_mirrored_ones(drives):
    drive = drives['scene-0103']
    numbers, images = drive.with_images()
    poses, times = drive.poses[numbers], drive.timestamps[numbers]
    assert check_rig(drive.rig, images, poses, times) == []
    mirror = np.diag([1.0, -1, 1, 1])
    assert faults_of(drive.rig, images, mirror @ poses @ mirror, times) == [(None, 'yaw_sign')]


def test_rendered_images_fit_their_poses_and_not_mirrored_ones(rendered):
    rig, images, poses = rendered
    assert check_rig(rig, images, poses) == []
    assert faults_of(rig, images, poses * [1, -1, -1]) == [(None, 'yaw_sign')]
    names = {name: f'camera_{number}' for number, name in enumerate(rig.cameras)}
    nameless = Rig({names[name]: each for name, each in rig.cameras.items()})
    frames = [{names[name]: image for name, image in frame.items()} for frame in images]
    assert check_rig(nameless, frames, poses) == []
    [finding] = check_rig(exchange(nameless, 'camera_0', 'camera_3'), frames, poses)
    assert (finding.fault, finding.camera, finding.other_camera) == ('swapped_cameras', 'camera_0', 'camera_3')


def test_images_of_a_straight_drive_tell_no_turn():
    rig, images, poses = rendered_drive(index=5, frames=range(4, 7))
    assert check_rig(rig, images, poses) == []
    assert check_rig(rig, images, poses * [1, -1, -1]) == []


IMAGE = np.zeros((900, 1600, 3), np.uint8)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'rig': {'front': IMAGE}}, 'rig is a Rig of cameras, got dict'),
        ({'images': IMAGE}, 'images are a mapping of camera names'),
        ({'images': 'front.jpg'}, 'images are a mapping of camera names'),
        ({'images': [IMAGE]}, 'images of frame 0 are a mapping'),
        ({'images': {'CAM_TOP': IMAGE}}, 'of CAM_TOP, which the rig lacks; it has CAM_FRONT'),
        ({'images': {'CAM_FRONT': IMAGE[..., 0]}}, r'the image of CAM_FRONT is \(H, W, 3\) uint8'),
        ({'images': {'CAM_FRONT': IMAGE.astype(np.float32)}}, 'got float32'),
        ({'images': {'CAM_FRONT': 'front.jpg'}}, 'as cv2.imread returns it, got str'),
        ({'poses': []}, 'poses are a sequence'),
        ({'poses': 5}, 'poses are a sequence'),
        ({'poses': [(0, 0)]}, r'pose 0 is a \(4, 4\) matrix'),
        ({'poses': [(0, 0, 0), 'north']}, r'pose 1 is a \(4, 4\) matrix'),
        ({'poses': [(0, 0, np.nan)]}, 'pose 0 holds numbers that are not finite'),
        ({'poses': [2 * np.eye(4)]}, 'pose 0 is no rotation with a translation'),
        ({'poses': [(0, 0, 0)], 'timestamps': [0.0, 0.5]}, 'got 1 poses, 2 timestamps'),
        ({'poses': [(0, 0, 0)], 'images': [{}, {}]}, 'got 2 frames of images, 1 poses'),
        ({'timestamps': ['noon']}, 'timestamps are finite seconds'),
        ({'timestamps': [[0.0]]}, 'timestamps are finite seconds'),
        ({'timestamps': [np.inf]}, 'timestamps are finite seconds'),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        check_rig(**{'rig': SIMULATED[0], **arguments})


def test_a_missing_image_is_no_fault():
    assert check_rig(SIMULATED[0], {'CAM_FRONT': None, 'CAM_BACK': IMAGE}) == []


def test_mistakes_that_change_nothing_are_not_planted():
    """A camera that looks exactly ahead has a quaternion that is the same rotation in either order."""
    ahead = camera()
    assert not is_visible(ahead, planted_faults.with_other_quaternion(ahead, [1, 2, 3, 0]))
    assert is_visible(ahead, planted_faults.with_transposed_rotation(ahead))
