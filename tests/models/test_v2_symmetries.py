"""Mirrored images with a mirrored calibration, and a mirrored and turned world, in the BEV of BEVFormerV2.

An encoder whose queries are all alike and that looks exactly where the calibration points has no direction of its own:
what is left is the geometry.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bevformer_plugin.datasets.transforms.bev_augmentation import bev_matrix
from bevformer_plugin.datasets.transforms.image_augmentation import mirrored_projection
from bevformer_plugin.geometry import transform_bev
from bevformer_plugin.models import CameraFeatures
from tests.models.v2_world import batch_of, build, dataset_of, seeded_item, shrunk_config

TURNS = {
    'mirrored left and right': bev_matrix(0.0, 1.0, True, False),
    'mirrored front and back': bev_matrix(0.0, 1.0, False, True),
    'a quarter to the left': bev_matrix(np.pi / 2, 1.0, False, False),
    'a quarter to the left, mirrored': bev_matrix(np.pi / 2, 1.0, True, False),
}


@pytest.fixture(scope='module')
def seen(synthetic_root, info_files):
    """An encoder without directions, and the features and frame of a sample."""
    cfg = shrunk_config('t1_base', [0])
    model = build(cfg).eval()
    encoder = model.bev_encoder
    with torch.no_grad():
        encoder.bev_embedding.weight.copy_(encoder.bev_embedding.weight[:1].expand_as(encoder.bev_embedding.weight))
        for embedding in (encoder.positional_encoding.row_embed, encoder.positional_encoding.col_embed):
            nn.init.zeros_(embedding.weight)
        for name, parameter in encoder.named_parameters():
            if 'sampling_offsets' in name:
                nn.init.zeros_(parameter)
        dataset = dataset_of(cfg, 'train', synthetic_root, info_files['mini_train'])
        inputs, samples = batch_of(model, [seeded_item(dataset, 2, 0)])
        frame = model.frames_of([samples[0].metainfo])[0]
        (features,) = model.camera_features(inputs['imgs'][:, -1], [frame])
        bev = encoder(features, [frame], [None])
    assert bev.std(dim=1).max() > 0.1  # cells differ
    return encoder, features, frame, bev


@torch.no_grad()
def test_a_mirrored_image_of_a_mirrored_camera_shows_the_same(seen):
    encoder, features, frame, bev = seen
    mirrored = CameraFeatures([0], [level.flip(-1) for level in features.levels], features.image_hw)
    projections = [mirrored_projection(one.numpy(), features.image_hw[1]) for one in frame.lidar2img]
    turned = replace(frame, lidar2img=torch.from_numpy(np.stack(projections)))
    torch.testing.assert_close(encoder(mirrored, [turned], [None]), bev, atol=1e-4, rtol=0)
    assert (encoder(mirrored, [frame], [None]) - bev).abs().max() > 0.1


@pytest.mark.parametrize('turn', TURNS.values(), ids=TURNS)
@torch.no_grad()
def test_a_turned_world_gives_the_turned_bev(seen, turn):
    """The calibration of cameras that look at the moved world, against the BEV moved as in BEV augmentation."""
    encoder, features, frame, bev = seen
    moved = torch.eye(4, dtype=torch.float64)
    moved[:2, :2] = torch.from_numpy(turn)
    turned = replace(frame, lidar2img=frame.lidar2img @ torch.linalg.inv(moved))
    ours = encoder(features, [turned], [None])
    expected = transform_bev(bev, torch.from_numpy(turn)[None], encoder.grid)
    # A point on the border of an image may fall to either side of it: few cells.
    error = (ours - expected).abs().amax(-1)
    assert (error < 1e-3).float().mean() > 0.97
    assert ((ours - bev).abs().amax(-1) < 1e-3).float().mean() < 0.5
