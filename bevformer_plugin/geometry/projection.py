"""Projection of points in the LiDAR frame to camera pixels."""

import torch
from torch import Tensor

MIN_DEPTH = 1e-5  # metres; a camera does not see points nearer to its plane


def project_to_cameras(points: Tensor, lidar2img: Tensor, image_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Project pillar points into every camera of every sample (paper equation 4).

    This is always computed in float32 with autocast off, since half precision moves a point by several pixels.

    Args:
        points: (D, Q, 3) LiDAR frame, metres.
        lidar2img: (B, N, 4, 4) LiDAR metres to homogeneous pixels of the (resized) image.
        image_hw: height and width in pixels of the *padded* image.

    Returns:
        reference_points_cam: (B, N, Q, D, 2) in (x, y), fractions of the padded image.
        visible: (B, N, Q, D) bool, depth above ``MIN_DEPTH`` and the pixel strictly inside the padded image.
    """
    if lidar2img.ndim != 4 or lidar2img.shape[-2:] != (4, 4):
        raise ValueError(f'lidar2img has shape (B, N, 4, 4), got {tuple(lidar2img.shape)}')
    height, width = image_hw
    with torch.autocast(points.device.type, enabled=False):
        x, y, z = points.float().transpose(0, 1).unbind(-1)  # QxD each
        column = lidar2img.float()[:, :, :3, :, None, None].unbind(3)  # BxNx3x1x1 each
        # These are products and sums instead of a matrix product, which TF32 would make imprecise.
        u, v, depth = (column[0] * x + column[1] * y + column[2] * z + column[3]).unbind(2)  # BxNxQxD each
        divisor = depth.clamp(min=MIN_DEPTH)
        reference_points_cam = torch.stack([u / divisor / width, v / divisor / height], dim=-1)
        inside = (reference_points_cam > 0) & (reference_points_cam < 1)
        visible = (depth > MIN_DEPTH) & inside.all(-1)
    return reference_points_cam, visible
