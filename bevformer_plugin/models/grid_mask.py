"""GridMask augmentation (Chen et al., arXiv 2001.04086)."""

import torch
from torch import Tensor, nn


class GridMask(nn.Module):
    """Sets a regular grid of squares to 0, one pattern per sample, shared by its cameras; in training only.

    Args:
        prob: chance that a sample is masked.
        ratio: how much of a grid period stays visible along each axis; a hidden square has the other ``1 - ratio``.

    Raises:
        ValueError: if ``prob`` or ``ratio`` is outside [0, 1].
    """

    def __init__(self, prob: float = 0.7, ratio: float = 0.5) -> None:
        super().__init__()
        if not 0 <= prob <= 1 or not 0 <= ratio <= 1:
            raise ValueError(f'prob and ratio lie in [0, 1], got prob={prob}, ratio={ratio}')
        self.prob = prob
        self.ratio = ratio

    def forward(self, imgs: Tensor) -> Tensor:
        """Mask (B, N, 3, H, W) images; unchanged in eval mode."""
        if not self.training:
            return imgs
        height, width = imgs.shape[-2:]
        masks = [
            self._keep(height, width) if torch.rand(()) < self.prob else torch.ones(height, width)
            for _ in range(len(imgs))
        ]
        return imgs * torch.stack(masks).to(imgs)[:, None, None]

    def _keep(self, height: int, width: int) -> Tensor:
        """(H, W) of 1 and 0: 0 where a pixel is in a hidden row and in a hidden column of the grid."""
        period = int(torch.randint(2, max(height, 3), ()))
        hidden = min(max(int(period * (1 - self.ratio) + 0.5), 1), period - 1)
        row_start, column_start = torch.randint(period, (2,)).tolist()
        rows = (torch.arange(height) - row_start) % period >= period - hidden
        columns = (torch.arange(width) - column_start) % period >= period - hidden
        return 1.0 - (rows[:, None] & columns[None]).float()
