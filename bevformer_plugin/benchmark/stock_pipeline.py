"""A dataset whose queues go through the transforms that mmdetection3d and mmcv ship."""

import numpy as np
import torch
from mmdet3d.registry import TRANSFORMS
from mmengine.dataset import Compose
from torch.utils.data import Dataset

from bevformer_plugin.datasets import NuScenesTemporalDataset
from bevformer_plugin.datasets.training_sampler import SeededIndex
from bevformer_plugin.seeding import seeded_generators


class StockQueues(Dataset):
    """Loads the queues of a dataset frame by frame through mmdetection3d's multi-view transforms.

    The transforms are composed as in mmdetection3d's multi-view config (``waymoD5-mv3d-3class.py``): images in float32
    are distorted at their stored size, then resized. As in the published BEVFormer the colours of each image are
    distorted separately, with the same random numbers as in the dataset's own pipeline. An item is
    ``inputs=dict(img=(T * N, 3, H, W) float32)`` and the data sample of the current frame, whose ``cam2img`` (N
    matrices, LiDAR to pixels) belongs to the resized images.

    Args:
        dataset: the dataset that chooses the frames; its own pipeline is not run.
        pipeline: config of that pipeline, which tells whether and how colours are distorted.
        resize_first: whether images are loaded as uint8 and resized before the distortion.
    """

    def __init__(self, dataset: NuScenesTemporalDataset, pipeline: list[dict], resize_first: bool = False) -> None:
        assert dataset.cameras is not None
        resize = [dict(type='Resize3D', scale=dataset.image_size)]
        distort = [
            {**transform, 'type': 'PhotoMetricDistortion3D'}
            for transform in pipeline
            if transform['type'] == 'PhotoMetricDistortionMultiView'
        ]
        self.dataset = dataset
        self.load_annotations = TRANSFORMS.build(dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True))
        self.transforms = Compose(
            [
                dict(
                    type='LoadMultiViewImageFromFiles',
                    to_float32=not resize_first,
                    color_type='color',
                    num_views=len(dataset.cameras),
                ),
                dict(
                    type='MultiViewWrapper',
                    transforms=resize + distort if resize_first else distort + resize,
                    override_aug_config=False,
                ),
                dict(type='Pack3DDetInputs', keys=['img', 'gt_bboxes_3d', 'gt_labels_3d']),
            ]
        )

    def __getitem__(self, idx: SeededIndex) -> dict:
        """Load the item that the dataset has at the same index."""
        with seeded_generators(idx.seed):
            item = self.dataset.get_data_info(int(idx))
            packed = [self._pack(frame) for frame in item['history']]
            packed.append(self._pack(self.load_annotations(item)))
        img = torch.cat([frame['inputs']['img'] for frame in packed])
        return {'inputs': {'img': img}, 'data_samples': packed[-1]['data_samples']}

    def _pack(self, frame: dict) -> dict:
        """Load and pack the images of one frame through the transforms."""
        packed = self.transforms(self._as_stock(frame))
        assert packed is not None  # a Compose gives None only if one of its transforms does
        return packed

    def _as_stock(self, frame: dict) -> dict:
        """Describe the cameras of a frame as mmdetection3d expects them, with the whole projection as intrinsics."""
        images = {
            name: {'img_path': image['img_path'], 'cam2img': image['lidar2img'].copy(), 'lidar2cam': np.eye(4)}
            for name, image in frame['images'].items()
        }
        return {**frame, 'images': images}
