"""Weights trained on boxes in a LiDAR's frame against infos in the vehicle's, and the other way round."""

import pytest
from torch.utils.data import Dataset

from bevformer_plugin.weights import check_checkpoint, check_initialization, check_resumption


class FrameDataset(Dataset):
    """A dataset that tells the frame of its boxes and nothing else."""

    def __init__(self, frame: str):
        self.metainfo = {'frame': frame}


def content(frame: str | None, cfg) -> dict:
    return {'meta': {'config': cfg.pretty_text, 'dataset_meta': {'frame': frame} if frame else {}}}


@pytest.mark.parametrize('check', [check_checkpoint, check_resumption])
@pytest.mark.parametrize(
    ('trained', 'given', 'message'),
    [
        ('lidar', 'vehicle', 'frame of the LiDAR, those of the dataset are in that of the vehicle: .* with LIDAR_TOP'),
        ('vehicle', 'lidar', 'frame of the vehicle, those of the dataset are in that of the LiDAR: .* without LIDAR_'),
    ],
)
def test_another_frame_is_refused(nano, check, trained, given, message):
    with pytest.raises(ValueError, match=f'weights.pth is trained on boxes in the {message}.*load_from'):
        check(nano, FrameDataset(given), 'weights.pth', content(trained, nano))


@pytest.mark.parametrize(
    ('trained', 'given', 'said'),
    [
        ('lidar', 'lidar', False),
        ('vehicle', 'vehicle', False),
        (None, 'lidar', False),
        (None, 'vehicle', True),
    ],
)
def test_weights_without_a_record_on_the_frame_of_a_vehicle(nano, trained, given, said):
    remarks = check_checkpoint(nano, FrameDataset(given), 'weights.pth', content(trained, nano))
    assert any('does not record in which frame its boxes are' in remark for remark in remarks) == said


def test_starting_from_another_frame_is_said(nano):
    remarks = check_initialization(nano, FrameDataset('vehicle'), 'weights.pth', content('lidar', nano))
    assert 'frame of the LiDAR, those of the dataset are in that of the vehicle' in remarks[0]
