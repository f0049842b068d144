"""Fixtures: the small detector and made-up batches for it."""

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from tests.helpers.reference_files import reference_module
from tests.models.small_detector import IMAGE_HW, detector_config


@pytest.fixture
def build_detector():
    """Build and initialise a small detector from :func:`detector_config`'s arguments."""

    def build(seed: int = 0, **kwargs) -> torch.nn.Module:
        torch.manual_seed(seed)
        with DefaultScope.overwrite_default_scope('mmdet3d'):
            model = MODELS.build(detector_config(**kwargs))
        model.init_weights()
        with torch.no_grad():
            # Offsets and weights start from constants; give every query its own, or history would hardly matter.
            for name, parameter in model.named_parameters():
                if 'sampling_offsets.weight' in name or 'attention_weights.weight' in name:
                    parameter.normal_(0, 0.2)
        return model

    return build


@pytest.fixture
def make_meta():
    """Meta of a frame: a vehicle that drives and turns, and a rig that differs from scene to scene."""
    rig = reference_module('rig')

    def make(frame: int, scene: str = 'a', num_cameras: int = 6) -> dict:
        offset = sum(map(ord, scene)) % 7
        matrices = rig.lidar2img(0.055)[np.arange(num_cameras) % 6]
        matrices[:, :2, 3] += offset
        can_bus = np.zeros(18)
        heading = np.deg2rad(90 + offset + 6 * frame)
        can_bus[:2] = 3 * frame * np.cos(heading), 3 * frame * np.sin(heading)
        can_bus[3], can_bus[16], can_bus[17] = 1, heading, np.rad2deg(heading)
        return dict(
            sample_idx=f'{scene}{frame}', scene_token=scene, timestamp=0.5 * frame, lidar2img=matrices, can_bus=can_bus
        )

    return make


@pytest.fixture
def make_sample(make_meta):
    """A queue of frames and its data sample with ``num_objects`` true boxes."""

    def image(scene: str, frame: int, num_cameras: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(sum(map(ord, scene)) * 100 + frame)
        return torch.randn(num_cameras, 3, *IMAGE_HW, generator=generator)

    def make(frames: range, scene: str = 'a', num_cameras: int = 6, num_objects: int = 4) -> tuple:
        imgs = torch.stack([image(scene, frame, num_cameras) for frame in frames])
        generator = torch.Generator().manual_seed(frames[-1])
        metas = [make_meta(frame, scene, num_cameras) for frame in frames]
        low = torch.tensor([-40, -30, -2, 0.5, 0.5, 0.5, -3, -5, -5.0])
        size = torch.tensor([80, 60, 2, 4, 2, 2, 6, 10, 10.0])
        boxes = LiDARInstance3DBoxes(torch.rand(num_objects, 9, generator=generator) * size + low, box_dim=9)
        labels = torch.randint(3, (num_objects,), generator=generator)
        sample = Det3DDataSample(metainfo={**metas[-1], 'history': metas[:-1]})
        sample.gt_instances_3d = InstanceData(bboxes_3d=boxes, labels_3d=labels)
        return imgs, sample

    return make
