"""Folders of images and files of poses as people have them: what counts, and what is refused."""

import cv2
import numpy as np
import pytest

from bevformer_plugin.deployment import Camera, Rig
from bevformer_plugin.deployment.frame_folder import Trajectory, count_unused, find_frames, require_sizes
from bevformer_plugin.errors import InputError

CAMERA = Camera([[90.0, 0, 16], [0, 90, 9], [0, 0, 1]], np.eye(4), (32, 18))
RIG = Rig({'CAM_FRONT': CAMERA, 'CAM_BACK': CAMERA})
HEADER = 'timestamp,x,y,yaw\n'


@pytest.fixture
def folder(tmp_path):
    for name in RIG.cameras:
        (tmp_path / name).mkdir()
        for time in ('0.5.jpg', '1.0.JPG'):
            (tmp_path / name / time).touch()
    return tmp_path


def test_what_systems_hide_does_not_count(folder):
    for name in ('.DS_Store', 'CAM_FRONT/.DS_Store', 'CAM_FRONT/Thumbs.db', 'CAM_FRONT/._0.5.jpg'):
        (folder / name).touch()
    (folder / '.thumbnails').mkdir()
    (folder / 'CAM_FRONT' / '2.jpg').mkdir()
    frames = find_frames(folder, RIG)
    assert [frame.timestamp for frame in frames] == [0.5, 1.0]
    assert all(path is not None for frame in frames for path in frame.paths.values())


def test_images_of_no_frame_are_counted(folder):
    assert count_unused(folder, RIG, find_frames(folder, RIG)) == 0
    (folder / 'CAM_BACK' / '1.0.JPG').rename(folder / 'CAM_BACK' / '2.0.jpg')
    frames = find_frames(folder, RIG)
    assert [frame.timestamp for frame in frames] == [0.5, 1.0] and frames[1].paths['CAM_BACK'] is None
    assert count_unused(folder, RIG, frames) == 1


@pytest.mark.parametrize('name', ['12_5.jpg', 'nan.jpg', 'inf.jpg'])
def test_names_that_are_no_times_are_refused(folder, name):
    (folder / 'CAM_FRONT' / name).touch()
    with pytest.raises(InputError, match=f'{name} is not named by its time'):
        find_frames(folder, RIG)


@pytest.mark.parametrize('offset', [-1, float('nan')])
def test_an_offset_that_no_image_can_have_is_refused(folder, offset):
    with pytest.raises(InputError, match=f'seconds from 0 on, got {offset}'):
        find_frames(folder, RIG, offset)


def test_a_folder_of_many_files_is_not_listed(tmp_path):
    for number in range(50):
        (tmp_path / f'{number}.jpg').touch()
    with pytest.raises(FileNotFoundError, match='no folder of images for CAM_FRONT, CAM_BACK; it holds no folders'):
        find_frames(tmp_path, RIG)


def test_files_of_another_size_are_found_by_their_headers(folder):
    for path in folder.glob('*/*'):
        cv2.imwrite(str(path), np.zeros((18, 32, 3), np.uint8))
    require_sizes(find_frames(folder, RIG), RIG)
    cv2.imwrite(str(folder / 'CAM_BACK' / '0.5.jpg'), np.zeros((36, 64, 3), np.uint8))
    with pytest.raises(InputError, match=r'0\.5\.jpg is 64 x 36 pixels, the calibration of CAM_BACK is for 32 x 18'):
        require_sizes(find_frames(folder, RIG), RIG)
    (folder / 'CAM_BACK' / '0.5.jpg').write_text('no image')
    with pytest.raises(InputError, match=r'0\.5\.jpg is not a readable image'):
        require_sizes(find_frames(folder, RIG), RIG)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    (tmp_path / 'poses.csv').write_text('\ufeff' + HEADER + '1,2,3,0\n\n2,4,3,0\n', encoding='utf-8')
    assert Trajectory.from_file(tmp_path / 'poses.csv').at(1.5)[:3, 3] == pytest.approx([3, 3, 0])


def test_how_far_apart_the_poses_around_a_time_are():
    trajectory = Trajectory([0.0, 1.0, 4.0], [np.eye(4)] * 3)
    assert [trajectory.gap_at(time) for time in (0.0, 0.5, 1.0, 2.0, 4.0)] == [0, 1, 0, 3, 0]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (f'{HEADER}1,2,3,90°'.encode('cp1252'), 'is no CSV file in UTF-8'),
        (b'timestamp;x;y;yaw\n1;2;3;4', 'has the columns timestamp;x;y;yaw; .*, parted by commas'),
        (f'{HEADER}1,2,3,{"4" * 200_000}'.encode(), 'is no CSV file in UTF-8: field larger'),
        (f'{HEADER}1,2,3,4\nnan,2,3,4'.encode(), "line 3 of .*: 'nan' is no finite number"),
        (f'{HEADER}1_0,2,3,4'.encode(), "line 2 of .*: '1_0' is no finite number"),
        (f'{HEADER}\n\n2,2,3,4\n\n1,2,3,4'.encode(), 'line 6 of .*: time 1.0 is not after 2.0'),
    ],
)
def test_poses_that_cannot_be_read_are_refused(tmp_path, content, message):
    (tmp_path / 'poses.csv').write_bytes(content)
    with pytest.raises(InputError, match=message):
        Trajectory.from_file(tmp_path / 'poses.csv')
