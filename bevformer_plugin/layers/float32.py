"""A linear layer for positions, which are computed in float32 whatever the precision of other layers."""

import torch
from torch import Tensor, nn


class Float32Linear(nn.Linear):
    """A linear layer that ignores autocast, since rounding a position by half a per cent moves it by decimetres."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) of any floating type to (..., out) in float32."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())
