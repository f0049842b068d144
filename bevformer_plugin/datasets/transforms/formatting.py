"""From a queue of loaded frames to the item that models take."""

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import InstanceData, PixelData

from bevformer_plugin.errors import InputError

FRAME_META = (
    'scene_token',
    'scene_name',
    'frame_idx',
    'timestamp',
    'lidar2img',
    'lidar2ego',
    'ego2global',
    'can_bus',
    'cameras',
    'img_paths',
    'ori_shape',
)


@TRANSFORMS.register_module()
class PackTemporalInputs(BaseTransform):
    """Turns a queue of frames into ``dict(inputs=dict(img=...), data_samples=Det3DDataSample)``.

    ``img`` is (T, N, 3, H, W), BGR, uint8 or float32 as loaded; the T frames are ordered from the oldest to the
    current one. Uint8 images that were distorted come with ``img_range`` (T, N, 2) float32, the values that 0 and 255
    stand for. The data sample's metainfo is the meta of the current frame (``FRAME_META``, ``sample_idx`` = sample
    token, ``img_shape`` = (H, W), box type and mode, ``bev_augmentation`` and ``camera_intrinsics`` where there are
    any) and ``history``, the metas of the T - 1 frames before. Training items have ``gt_instances_3d`` (bboxes_3d,
    labels_3d) and ``gt_camera_instances`` if they were loaded, test items ``eval_ann_info``, and items whose map was
    drawn ``gt_map``, a PixelData of (classes, rows, columns) uint8.

    Raises:
        InputError: the images differ in size, are of another size than the dataset's ``image_size``, or were
            transformed after ``LoadCameraInstances``, or true boxes were moved alone.
    """

    def transform(self, results: dict) -> dict:
        """Pack the current frame and its history."""
        if results.get('transformation_3d_flow'):
            raise InputError(
                f'true boxes of sample {results["token"]} were moved by a transform for point clouds, such as '
                'RandomFlip3D, and neither images nor BEV with them: take it out of the pipeline (BEVFormerV2 has '
                'RandomBEVAugmentation)'
            )
        frames = [*results['history'], results]
        metas = [self._meta(frame, results) for frame in frames]
        if 'bev_augmentation' in results:
            metas[-1]['bev_augmentation'] = results['bev_augmentation']
        if 'camera_intrinsics' in results:
            if not np.array_equal(results['camera_instances_lidar2img'], np.stack(results['lidar2img'])):
                raise InputError(
                    f'images of sample {results["token"]} were resized, cropped or mirrored after LoadCameraInstances '
                    'had found the objects in them: put it behind all transforms of images'
                )
            metas[-1]['camera_intrinsics'] = results['camera_intrinsics']
        sample = Det3DDataSample(metainfo={**metas[-1], 'history': metas[:-1]})
        if 'gt_bboxes_3d' in results:
            sample.gt_instances_3d = InstanceData(
                bboxes_3d=results['gt_bboxes_3d'], labels_3d=torch.as_tensor(results['gt_labels_3d'])
            )
        if 'gt_map' in results:
            sample.gt_map = PixelData(data=torch.from_numpy(results['gt_map']))
        if 'gt_camera_instances' in results:
            sample.gt_camera_instances = results['gt_camera_instances']
        sample.eval_ann_info = results.get('eval_ann_info')
        inputs = {'img': self._stack(frames)}
        if 'img_range' in results:
            inputs['img_range'] = torch.from_numpy(np.stack([frame['img_range'] for frame in frames]))
        return {'inputs': inputs, 'data_samples': sample}

    def _meta(self, frame: dict, results: dict) -> dict:
        """Return the meta of a frame of the queue ``results``."""
        return {
            'sample_idx': frame['token'],
            **{key: frame[key] for key in FRAME_META},
            'img_shape': frame['img'][0].shape[:2],
            'box_type_3d': results['box_type_3d'],
            'box_mode_3d': results['box_mode_3d'],
        }

    def _stack(self, frames: list[dict]) -> torch.Tensor:
        """Stack all images to (T, N, 3, H, W), see the class for errors."""
        shapes = {image.shape for frame in frames for image in frame['img']}
        if len(shapes) > 1:
            sizes = ', '.join(f'{width} x {height}' for height, width, _ in sorted(shapes))
            raise InputError(
                f'images of sample {frames[-1]["token"]} and its history differ in size ({sizes}): set image_size of '
                'the dataset and put ResizeMultiView into the pipeline'
            )
        (height, width, channels), first = shapes.pop(), frames[0]['img']
        wanted = frames[-1]['scale']
        if wanted is not None and wanted != (width, height):
            raise InputError(
                f'images of sample {frames[-1]["token"]} are {width} x {height} pixels, image_size of the dataset is '
                f'{wanted[0]} x {wanted[1]}: put ResizeMultiView into the pipeline, or leave image_size out'
            )
        stacked = np.empty((len(frames), len(first), channels, height, width), dtype=first[0].dtype)
        for planes_of_frame, frame in zip(stacked, frames, strict=True):
            for planes, image in zip(planes_of_frame, frame['img'], strict=True):
                cv2.split(image, list(planes))  # HxWx3 -> 3xHxW, ten times faster than transposing
        return torch.from_numpy(stacked)
