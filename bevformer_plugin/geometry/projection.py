"""Projection of points in the LiDAR frame to camera pixels, and what a projection consists of."""

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


def split_projection(lidar2img: Tensor) -> tuple[Tensor, Tensor]:
    """Split projections into the intrinsics of their cameras and where these stand.

    The camera frame is x to the right of the image, y down, z forward, metres. A projection into a mirrored image is
    one of a mirrored camera: its frame is left-handed, and the focal lengths are positive as everywhere.

    Args:
        lidar2img: (N, 4, 4) LiDAR metres to homogeneous pixels.

    Returns:
        intrinsics: (N, 3, 3) float64, camera metres to homogeneous pixels; upper triangular, 1 at the lower right.
        lidar2cam: (N, 4, 4) float64, a rotation, or in a mirrored image a rotation and a mirroring, and a translation.

    Raises:
        ValueError: if a matrix projects everything onto a line or a point, with the places of these cameras.
    """
    projection = lidar2img.double()[:, :3]
    square = projection[:, :, :3]
    # M = K R with R orthogonal, so M M^T = K K^T. Turned by half a turn, K is the lower triangle that Cholesky finds.
    factors, failures = torch.linalg.cholesky_ex((square @ square.transpose(1, 2)).flip(1, 2))
    if failures.any():
        raise ValueError(f'no projections onto images: {failures.nonzero()[:, 0].tolist()}')
    scaled = factors.flip(1, 2)
    lidar2cam = torch.eye(4, dtype=torch.float64, device=lidar2img.device).repeat(len(lidar2img), 1, 1)
    lidar2cam[:, :3] = torch.linalg.solve(scaled, projection)
    return scaled / scaled[:, 2:, 2:], lidar2cam
