"""3-D boxes as a single camera sees them: their parametrisation in the perspective head, and their corners.

Camera frame: x right, y down, z forward, metres. A box has the rotation (w, x, y, z) of its own frame (x along its
length, y along its width, z along its height), its centre, and its width, length and height.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

REFERENCE_FOCAL = 500.0  # pixels; depths are predicted as if of a camera with about this focal length


@dataclass(frozen=True)
class CameraBoxes:
    """3-D boxes, each of its own image.

    Attributes:
        rotations: (n, 3, 3) from the frame of the box to that of the camera.
        projected_centers: (n, 2) pixels.
        depths: (n,) metres along the optical axis.
        sizes: (n, 3) width, length, height in metres.
        inverse_intrinsics: (n, 3, 3) of the box's image, from homogeneous pixels to rays of depth 1.
    """

    rotations: Tensor
    projected_centers: Tensor
    depths: Tensor
    sizes: Tensor
    inverse_intrinsics: Tensor

    @property
    def centers(self) -> Tensor:
        """The (n, 3) centres in the camera frame, metres."""
        return self.depths[:, None] * rays(self.projected_centers, self.inverse_intrinsics)

    def corners(self) -> Tensor:
        """Compute the (n, 8, 3) corners in the camera frame, metres."""
        signs = torch.tensor([-0.5, 0.5], device=self.depths.device)
        unit = torch.cartesian_prod(signs, signs, signs)  # 8x3 in (length, width, height)
        extents = self.sizes[:, None, [1, 0, 2]] * unit
        return extents @ self.rotations.transpose(1, 2) + self.centers[:, None]

    def with_one_part_of(self, other: 'CameraBoxes') -> dict[str, 'CameraBoxes']:
        """Replace one of rotation, projected centre, depth and size by another's, and keep the other three."""
        return {
            'quat': replace(self, rotations=other.rotations),
            'proj_ctr': replace(self, projected_centers=other.projected_centers),
            'depth': replace(self, depths=other.depths),
            'size': replace(self, sizes=other.sizes),
        }

    @classmethod
    def from_metric(cls, boxes: Tensor, intrinsics: Tensor) -> 'CameraBoxes':
        """Describe true boxes.

        Args:
            boxes: (n, 10) rotation (w, x, y, z), centre x, y, z, width, length, height.
            intrinsics: (n, 3, 3) of their images.
        """
        pixels = (intrinsics @ boxes[:, 4:7, None])[..., 0]
        return cls(
            rotations=rotation_matrices(boxes[:, :4]),
            projected_centers=pixels[:, :2] / pixels[:, 2:],
            depths=boxes[:, 6],
            sizes=boxes[:, 7:],
            inverse_intrinsics=torch.linalg.inv(intrinsics),
        )

    @classmethod
    def from_predictions(
        cls,
        quaternions: Tensor,
        projected_centers: Tensor,
        depths: Tensor,
        log_sizes: Tensor,
        canonical_sizes: Tensor,
        intrinsics: Tensor,
        depth_range: tuple[float, float],
    ) -> 'CameraBoxes':
        """Decode what the head predicts (Park et al., DD3D, arXiv 2108.06417, section 3.1).

        Args:
            quaternions: (n, 4) of any length, of a rotation relative to the ray through the projected centre.
            projected_centers: (n, 2) pixels.
            depths: (n,) metres for a camera of the reference focal length.
            log_sizes: (n, 3), 0 for a canonical size.
            canonical_sizes: (n, 3) of the boxes' classes, metres.
            intrinsics: (n, 3, 3) of their images.
            depth_range: smallest and largest depth in metres.
        """
        inverse = torch.linalg.inv(intrinsics)
        rotations = rotations_to_ray(projected_centers, inverse) @ rotation_matrices(quaternions)
        pixel_size = (1 / intrinsics[:, [0, 1], [0, 1]]).norm(dim=1)
        return cls(
            rotations=rotations,
            projected_centers=projected_centers,
            depths=(depths / (pixel_size * REFERENCE_FOCAL)).clamp(*depth_range),
            sizes=(log_sizes.tanh() + 1) * canonical_sizes,
            inverse_intrinsics=inverse,
        )


def rays(pixels: Tensor, inverse_intrinsics: Tensor) -> Tensor:
    """Compute rays (n, 3) of depth 1 through (n, 2) pixels."""
    return (inverse_intrinsics @ F.pad(pixels, (0, 1), value=1.0)[..., None])[..., 0]


def rotations_to_ray(pixels: Tensor, inverse_intrinsics: Tensor) -> Tensor:
    """Compute the rotations (n, 3, 3) of frames whose z axes are the rays through pixels, to the camera's frame."""
    forward = F.normalize(rays(pixels, inverse_intrinsics), dim=1)
    down = torch.tensor([0.0, 1.0, 0.0], device=pixels.device, dtype=pixels.dtype) - forward[:, 1:2] * forward
    down = F.normalize(down, dim=1)
    return torch.stack([torch.linalg.cross(down, forward), down, forward], dim=-1)


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """Turn quaternions (n, 4) of any length, (w, x, y, z), into rotations (n, 3, 3)."""
    w, x, y, z = F.normalize(quaternions, dim=1).unbind(1)
    rows = [
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
