"""From LiDAR-frame points to camera pixels."""
import torch
from torch import Tensor

MIN_DEPTH = 1e-5  # metres; points nearer to the camera plane than this are not seen


def project_to_cameras(points: Tensor, lidar2img: Tensor, image_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Project pillar points into every camera of every sample (paper equation 4).

    Always computed in float32 with autocast off: half precision moves a point by several pixels.

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
        matrix = lidar2img.float()[:, :, None, None, :3]  # BxNx1x1x3x4
        homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1).float()
        homogeneous = homogeneous.transpose(0, 1)  # QxDx4
        # A product and a sum, not a matrix product: TF32 must not touch it.
        pixels = (matrix * homogeneous[None, None, :, :, None, :]).sum(-1)  # BxNxQxDx3
        depth = pixels[..., 2:]
        in_front = depth > MIN_DEPTH
        size = torch.tensor([width, height], device=points.device, dtype=torch.float32)
        reference_points_cam = pixels[..., :2] / depth.clamp(min=MIN_DEPTH) / size
        inside = (reference_points_cam > 0) & (reference_points_cam < 1)
        visible = in_front.squeeze(-1) & inside.all(-1)
    return reference_points_cam, visible
