"""GridMask augmentation (Chen et al., arXiv 2001.04086)."""

import torch
from torch import Tensor, nn

from bevformer_plugin.errors import InputError


class GridMask(nn.Module):
    """Sets a regular grid of squares to 0, one pattern per sample, shared by its cameras; in training only.

    At the published ratio of 0.5, 26 to 27 % of the pixels of a masked sample are hidden: a quarter within the grid,
    and more at the borders of the image, which the grid may not reach.

    Args:
        prob: chance that a sample is masked.
        ratio: how much of a grid period stays visible along each axis; a hidden square has the other ``1 - ratio``.

    Raises:
        InputError: if ``prob`` or ``ratio`` is outside [0, 1].
    """

    def __init__(self, prob: float = 0.7, ratio: float = 0.5) -> None:
        super().__init__()
        if not 0 <= prob <= 1 or not 0 <= ratio <= 1:
            raise InputError(f'prob and ratio lie in [0, 1], got prob={prob}, ratio={ratio}')
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
        row_start, column_start = torch.randint(period, (2,)).tolist()
        rows, columns = self._hidden(height, period, row_start), self._hidden(width, period, column_start)
        return 1.0 - (rows[:, None] & columns[None]).float()

    def _hidden(self, length: int, period: int, start: int) -> Tensor:
        """(length,) bool along one axis, True between the visible stripes.

        As published the stripes lie on a canvas of 1.5 times the length, of which the middle is seen: before the first
        of them, at ``start``, and behind the last, nothing is visible.
        """
        canvas = 3 * length // 2
        visible = min(max(int(period * self.ratio + 0.5), 1), period - 1)
        place = torch.arange(length) + (canvas - length) // 2 - start
        stripe = place.div(period, rounding_mode='floor')
        return (stripe < 0) | (stripe >= canvas // period) | (place % period >= visible)
