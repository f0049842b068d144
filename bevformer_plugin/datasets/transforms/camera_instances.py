"""True objects in each camera's own view, for the perspective head of BEVFormer v2."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmengine.structures import InstanceData
from scipy.spatial.transform import Rotation
from torch import Tensor

from bevformer_plugin.errors import InputError

from ..camera_objects import CameraObjects
from .image_files import images_of, size_of

MIN_DEPTH = 0.1  # metres; corners nearer to the camera's plane do not shape a 2-D box


@TRANSFORMS.register_module()
class LoadCameraInstances(BaseTransform):
    """Finds the objects that each image of the current frame shows, from the boxes in the LiDAR frame.

    Results get ``gt_camera_instances``, an InstanceData with ``cameras`` (n,), ``labels`` (n,), ``boxes2d`` (n, 4) in
    pixels of the image as it is now, ``boxes3d`` (n, 10) in the camera's frame (rotation w, x, y, z; centre; width,
    length, height), ``attributes`` (n,) and ``speeds`` (n,), ``camera_intrinsics`` (N, 3, 3) of the images, and
    ``camera_instances_lidar2img``, by which ``PackTemporalInputs`` sees that they are still of these images.

    In a mirrored image every object is the mirrored one: centre and rotation are those seen by a mirrored camera. The
    boxes of the infos turn about the LiDAR's vertical axis alone, so a slope of the road under the vehicle is not in
    their rotation. Put it behind all transforms of images and before augmentation of the BEV, which it does not
    follow; the dataset needs ``with_camera_objects=True``.

    Args:
        min_points: LiDAR and radar points that an object has at least; 0 where the data has no LiDAR.
        min_visible: share of an object's 2-D box that lies in the image as it is stored, at least.

    Raises:
        InputError: if the dataset gives no objects, or ``min_visible`` is outside [0, 1].
    """

    def __init__(self, min_points: int = 3, min_visible: float = 0.2) -> None:
        if not 0 <= min_visible <= 1:
            raise InputError(f'min_visible of LoadCameraInstances lies in [0, 1], got {min_visible!r}')
        self.min_points = min_points
        self.min_visible = min_visible

    def transform(self, results: dict) -> dict:
        """Find the objects of all images of the current frame."""
        objects = results.get('camera_objects')
        if objects is None:
            raise InputError(
                'LoadCameraInstances finds no camera_objects: set with_camera_objects=True of the dataset, which must '
                'not be in test_mode'
            )
        intrinsics, found = [], []
        pixels_of = images_of(results, 'LoadCameraInstances')
        for camera, (image, pixels) in enumerate(zip(results['images'].values(), pixels_of, strict=True)):
            cam2img = results['lidar2img'][camera] @ np.linalg.inv(image['lidar2cam'])
            mirrored = cam2img[0, 0] < 0
            mirroring = np.diag([-1.0 if mirrored else 1.0, 1.0, 1.0])
            intrinsics.append((cam2img[:3, :3] @ mirroring).astype(np.float32))
            found.append(self._in_camera(camera, image, objects, results['lidar2img'][camera], size_of(pixels)))
        results['camera_intrinsics'] = np.stack(intrinsics)
        results['camera_instances_lidar2img'] = np.stack(results['lidar2img'])
        results['gt_camera_instances'] = InstanceData.cat(found)
        return results

    def _in_camera(
        self,
        camera: int,
        image: dict,
        objects: CameraObjects,
        lidar2img: np.ndarray,
        size: tuple[int, int],
    ) -> InstanceData:
        """Find the objects of one image of (W, H) ``size`` whose projection is ``lidar2img`` now."""
        lidar2cam = image['lidar2cam']
        centers = _transformed(objects.boxes.gravity_center.numpy(), lidar2cam)
        boxes2d = _projected(objects.boxes.corners.numpy(), image['lidar2img'])
        within = _clipped(boxes2d, (image['width'], image['height']))
        visible = _areas(within) >= self.min_visible * _areas(boxes2d)
        # What brought the stored image to its present size, place and side did the same to the box.
        affine = lidar2img @ np.linalg.inv(image['lidar2img'])
        ends = np.stack([within[:, :2], within[:, 2:]]) * affine[[0, 1], [0, 1]] + affine[:2, 2]
        shown = _clipped(np.concatenate([ends.min(0), ends.max(0)], axis=1), size)
        kept = (centers[:, 2] > 0) & visible & (_areas(within) > 0) & (_areas(shown) > 0)
        kept &= objects.num_points >= self.min_points
        mirrored = affine[0, 0] < 0
        speeds = objects.boxes.tensor[:, 7:9].norm(dim=1)
        return InstanceData(
            cameras=torch.full((int(kept.sum()),), camera),
            labels=torch.from_numpy(objects.labels[kept]),
            boxes2d=torch.from_numpy(shown[kept]).float(),
            boxes3d=_camera_boxes(objects, centers, lidar2cam, mirrored)[torch.from_numpy(kept)],
            attributes=torch.from_numpy(objects.attributes[kept]),
            speeds=speeds[torch.from_numpy(kept)],
        )


def _transformed(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a (4, 4) matrix to (..., 3) points."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def _projected(corners: np.ndarray, lidar2img: np.ndarray) -> np.ndarray:
    """Return the 2-D boxes (n, 4) around the projections of (n, 8, 3) corners that are in front of the camera."""
    points = _transformed(corners.astype(np.float64), lidar2img)
    in_front = points[..., 2:] > MIN_DEPTH
    pixels = points[..., :2] / np.maximum(points[..., 2:], MIN_DEPTH)
    low = np.where(in_front, pixels, np.inf).min(1) if len(corners) else np.zeros((0, 2))
    high = np.where(in_front, pixels, -np.inf).max(1) if len(corners) else np.zeros((0, 2))
    behind = ~in_front.any(1)
    return np.concatenate([np.where(behind, 0.0, low), np.where(behind, 0.0, high)], axis=1)


def _clipped(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.clip(boxes, 0, [*size, *size])


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def _camera_boxes(objects: CameraObjects, centers: np.ndarray, lidar2cam: np.ndarray, mirrored: bool) -> Tensor:
    """Return boxes (n, 10) as :class:`LoadCameraInstances` gives them; ``centers`` (n, 3) are the camera's."""
    yaw = objects.boxes.yaw.numpy()
    rotations = lidar2cam[:3, :3] @ Rotation.from_rotvec(yaw[:, None] * [0.0, 0.0, 1.0]).as_matrix()
    if mirrored:  # both the camera's x and the box's y change sides, which leaves a rotation
        rotations = np.diag([-1.0, 1.0, 1.0]) @ rotations @ np.diag([1.0, -1.0, 1.0])
        centers = centers * [-1.0, 1.0, 1.0]
    x, y, z, w = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_quat().T
    length, width, height = objects.boxes.dims.numpy().T
    columns = [w, x, y, z, *centers.T, width, length, height]
    return torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))
