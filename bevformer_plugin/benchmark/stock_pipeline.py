"""A dataset's queues through the transforms that mmdetection3d and mmcv ship."""

import numpy as np
import torch
from mmdet3d.registry import TRANSFORMS
from mmengine.dataset import Compose
from torch.utils.data import Dataset

from bevformer_plugin.datasets import NuScenesTemporalDataset
from bevformer_plugin.datasets.training_sampler import SeededIndex
from bevformer_plugin.seeding import seeded_generators


class StockQueues(Dataset):
    """The queues of a dataset, frame by frame through mmdetection3d's multi-view transforms.

    They are composed as in mmdetection3d's multi-view config (``waymoD5-mv3d-3class.py``): float32 images, distorted
    as stored, then resized. As in the published BEVFormer, and with the same draws as in the dataset's own pipeline,
    each image has its own colours. An item is ``inputs=dict(img=(T * N, 3, H, W) float32)`` and the data sample of the
    current frame, whose ``cam2img`` (N matrices, LiDAR to pixels) belongs to the resized images.

    Args:
        dataset: chooses the frames; its own pipeline is not run.
        pipeline: config of that pipeline, for whether and how colours change.
        resize_first: load uint8 images and resize before the distortion.
    """

    def __init__(self, dataset: NuScenesTemporalDataset, pipeline: list[dict], resize_first: bool = False) -> None:
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
        """The item that the dataset gives for the same index."""
        with seeded_generators(idx.seed):
            item = self.dataset.get_data_info(int(idx))
            packed = [self.transforms(self._as_stock(frame)) for frame in item['history']]
            packed.append(self.transforms(self._as_stock(self.load_annotations(item))))
        img = torch.cat([frame['inputs']['img'] for frame in packed])
        return {'inputs': {'img': img}, 'data_samples': packed[-1]['data_samples']}

    def _as_stock(self, frame: dict) -> dict:
        """The frame with cameras as mmdetection3d expects them; all of the projection passes for intrinsics."""
        images = {
            name: {'img_path': image['img_path'], 'cam2img': image['lidar2img'].copy(), 'lidar2cam': np.eye(4)}
            for name, image in frame['images'].items()
        }
        return {**frame, 'images': images}
