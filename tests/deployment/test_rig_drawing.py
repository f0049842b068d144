"""Ground, horizon and cubes in the images."""

import numpy as np
import pytest

from bevformer_plugin.deployment import Camera, Rig
from bevformer_plugin.deployment.camera import pinhole
from bevformer_plugin.deployment.rig_check.drawing import AHEAD, CUBE, GROUND, HORIZON, draw_rig
from bevformer_plugin.errors import InputError
from tests.deployment.rigs import camera_pose, simulated_rigs

SIZE = (800, 450)


def level_camera(pitch: float = 0.0) -> Camera:
    return Camera(pinhole(600, 600, 400, 225), camera_pose((0, pitch, 0), (1.0, 0, 1.5)), SIZE)


def picture_of(camera: Camera) -> np.ndarray:
    return draw_rig(Rig({'front': camera}), {'front': np.zeros((450, 800, 3), np.uint8)})['front']


def rows_of(picture: np.ndarray, color: tuple[int, int, int], column: int) -> np.ndarray:
    """The rows of a column whose pixels are of a colour, up to the softness of a line's edge."""
    direction = np.array(color) / np.linalg.norm(color)
    pixels = picture[:, column].astype(float)
    along = pixels @ direction
    return np.flatnonzero((along > 120) & (np.linalg.norm(pixels - along[:, None] * direction, axis=1) < 12))


@pytest.mark.parametrize('pitch', [0.0, 5.0, -5.0])
def test_the_horizon_is_where_the_pitch_puts_it(pitch):
    """A level camera has it at the principal point; one that looks down by p has it f tan(p) above."""
    rows = rows_of(picture_of(level_camera(pitch)), HORIZON, 600)
    assert rows.size and abs(rows.mean() - (225 - 600 * np.tan(np.deg2rad(pitch)))) < 1.5


def test_grid_lines_and_cubes_are_where_their_corners_project_to():
    picture = picture_of(level_camera())
    # The grid's line across at x = 10 m is 9 m from the camera and 1.5 m below it.
    assert np.abs(rows_of(picture, GROUND, 300) - (225 + 600 * 1.5 / 9)).min() < 1.5
    # The upper edge of the front of the cube at 6 m is 4.5 m from the camera and 0.5 m below it, 1 m wide.
    assert np.abs(rows_of(picture, CUBE, 440) - (225 + 600 * 0.5 / 4.5)).min() < 1.5
    assert rows_of(picture, AHEAD, 400).max() == 449


def test_a_camera_that_looks_up_from_the_ground_sees_none_of_it():
    upwards = picture_of(level_camera(-60))
    assert not upwards[80:].any()  # below the camera's name


def test_every_image_gets_a_picture_of_its_size_and_stays_as_it_is():
    rig = simulated_rigs(1)[0].resized((400, 225))
    images = {name: np.full((225, 400, 3), 90, np.uint8) for name in rig.cameras}
    pictures = draw_rig(rig, images)
    assert list(pictures) == list(rig.cameras)
    for name, picture in pictures.items():
        assert picture.shape == (225, 400, 3) and picture.dtype == np.uint8
        assert (picture != 90).any() and (images[name] == 90).all()


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        ([{}], 'images are a mapping of camera names to arrays of one frame, got list'),
        ({'top': np.zeros((450, 800, 3), np.uint8)}, 'of top, which the rig lacks'),
        ({'front': np.zeros((900, 1600, 3), np.uint8)}, '1600 x 900 pixels, its calibration is for 800 x 450'),
        ({'front': np.zeros((450, 800), np.uint8)}, r'the image of front is \(H, W, 3\) uint8'),
    ],
)
def test_bad_images_are_refused(images, message):
    with pytest.raises(InputError, match=message):
        draw_rig(Rig({'front': level_camera()}), images)


def test_a_pose_without_an_inverse_is_refused():
    camera = Camera(pinhole(600, 600, 400, 225), np.zeros((4, 4)), SIZE)
    with pytest.raises(InputError, match='camera2ego of front has no inverse'):
        draw_rig(Rig({'front': camera}), {'front': np.zeros((450, 800, 3), np.uint8)})
