"""The layer of deformable convolution (DCNv2) that configs name, around the operator of this package."""

import mmcv.ops
from mmengine.registry import MODELS
from torch import Tensor

from bevformer_plugin.ops import modulated_deform_conv2d


@MODELS.register_module('DCNv2', force=True)
class ModulatedDeformConv2dPack(mmcv.ops.ModulatedDeformConv2dPack):
    """mmcv's layer with this package's operator, in its place in the registry: the same settings and weights.

    mmcv's own function breaks the graph of ``torch.compile``, and lays its output out with channels first.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W) with offsets and masks predicted from it."""
        predicted = self.conv_offset(x)
        offsets = 2 * predicted.shape[1] // 3
        return modulated_deform_conv2d(
            x,
            predicted[:, :offsets],
            predicted[:, offsets:].sigmoid(),
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.deform_groups,
        )
