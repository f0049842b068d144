"""Targets for dense heads: a Gaussian around every object's centre."""

import torch
from torch import Tensor


@torch.no_grad()
def draw_centers(heatmaps: Tensor, index: Tensor, cells: Tensor, radius: Tensor) -> None:
    """Write Gaussians into heatmaps in place; where some overlap the largest counts (CenterNet, arXiv 1904.07850).

    All objects at once: mmdetection3d's ``draw_heatmap_gaussian`` draws one, which takes as long as a small model's
    decoder when a frame has fifty.

    Args:
        heatmaps: (K, H, W) to write into.
        index: (n,) the heatmap of each object.
        cells: (n, 2) integer (column, row) of each centre.
        radius: (n,) cells within which the Gaussian is not 0; its standard deviation is (2 radius + 1) / 6.
    """
    height, width = heatmaps.shape[-2:]
    deviation = (2 * radius + 1) / 6
    profiles = []
    for axis, size in ((0, width), (1, height)):
        distance = torch.arange(size, device=heatmaps.device) - cells[:, axis, None]  # nxsize
        profile = torch.exp(-(distance**2) / (2 * deviation[:, None] ** 2))
        profiles.append(torch.where(distance.abs() <= radius[:, None], profile, 0.0))
    gaussians = profiles[1][:, :, None] * profiles[0][:, None, :]  # nxHxW
    heatmaps.scatter_reduce_(0, index[:, None, None].expand_as(gaussians), gaussians, 'amax')


def last_in_each_cell(cells: Tensor) -> Tensor:
    """Tell which objects are the last in their cells: one is written there, and a GPU would take any part of any.

    Args:
        cells: (n,) number of the cell that holds each object's centre.

    Returns:
        (n,) bool.
    """
    return ~(cells[:, None] == cells).triu(diagonal=1).any(1)
