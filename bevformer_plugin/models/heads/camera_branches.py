"""Convolutional branches of the perspective head, which all levels share but for their norms and scales."""

from collections.abc import Sequence

import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.nn import functional as F


class LevelScale(nn.Module):
    """A learned factor of one level.

    Args:
        start: its first value.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([float(start)]))

    def forward(self, values: Tensor) -> Tensor:
        """Multiply."""
        return values * self.scale


class LevelOffset(nn.Module):
    """A learned offset of one level.

    Args:
        start: its first value.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([float(start)]))

    def forward(self, values: Tensor) -> Tensor:
        """Add."""
        return values + self.bias


class TowerLayer(nn.Conv2d):
    """A 3x3 convolution, a norm of the level's own, and a ReLU.

    Args:
        channels: of input and output.
        num_levels: feature levels.
        norm_cfg: config of the norms.
    """

    def __init__(self, channels: int, num_levels: int, norm_cfg: dict) -> None:
        super().__init__(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.ModuleList(build_norm_layer(norm_cfg, channels)[1] for _ in range(num_levels))
        nn.init.kaiming_normal_(self.weight, mode='fan_out', nonlinearity='relu')

    def on_level(self, features: Tensor, level: int) -> Tensor:
        """Run on (n, C, h, w) features of a level."""
        return F.relu(self.norm[level](self(features)))


class Tower(nn.ModuleList):
    """Layers of :class:`TowerLayer`.

    Args:
        num_layers: number of layers.
        channels: of input and output.
        num_levels: feature levels.
        norm_cfg: config of the norms.
    """

    def __init__(self, num_layers: int, channels: int, num_levels: int, norm_cfg: dict) -> None:
        super().__init__(TowerLayer(channels, num_levels, norm_cfg) for _ in range(num_layers))

    def on_level(self, features: Tensor, level: int) -> Tensor:
        """Run all layers on (n, C, h, w) features of a level."""
        for layer in self:
            assert isinstance(layer, TowerLayer)
            features = layer.on_level(features, level)
        return features


def predictor(in_channels: int, out_channels: int, bias: bool = True) -> nn.Conv2d:
    """Build a 3x3 convolution that predicts; its bias starts at 0."""
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


class Branches2D(nn.Module):
    """Class, 2-D box and centerness at every location.

    Args:
        num_classes: object classes.
        channels: of the features.
        strides: of the levels, pixels.
        num_convs: layers of each tower.
        norm_cfg: config of the norms in the towers.
    """

    def __init__(
        self, num_classes: int, channels: int, strides: Sequence[int], num_convs: int, norm_cfg: dict
    ) -> None:
        super().__init__()
        self.cls_tower = Tower(num_convs, channels, len(strides), norm_cfg)
        self.box2d_tower = Tower(num_convs, channels, len(strides), norm_cfg)
        self.cls_logits = predictor(channels, num_classes)
        self.box2d_reg = predictor(channels, 4)
        self.centerness = predictor(channels, 1)
        self.scales_box2d_reg = nn.ModuleList(LevelScale(stride) for stride in strides)

    def forward(self, features: Tensor, level: int) -> tuple[dict[str, Tensor], Tensor]:
        """Run on (n, C, h, w) features of a level; returns maps (n, channels, h, w) by name, and the class tower's."""
        of_class = self.cls_tower.on_level(features, level)
        of_box = self.box2d_tower.on_level(features, level)
        maps = {
            'cls': self.cls_logits(of_class),
            'box2d': F.relu(self.scales_box2d_reg[level](self.box2d_reg(of_box))),
            'centerness': self.centerness(of_box),
        }
        return maps, of_class


class Branches3D(nn.Module):
    """Rotation, projected centre, depth, size and confidence of a 3-D box, for every class at every location.

    Args:
        num_classes: object classes.
        channels: of the features.
        strides: of the levels, pixels.
        mean_depths: of the objects of each level, metres; where depths start from.
        std_depths: their spreads, metres.
        num_convs: layers of the tower.
        norm_cfg: config of the norms in the tower.
    """

    mean_depth_per_level: Tensor
    std_depth_per_level: Tensor

    def __init__(
        self,
        num_classes: int,
        channels: int,
        strides: Sequence[int],
        mean_depths: Sequence[float],
        std_depths: Sequence[float],
        num_convs: int,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        self.register_buffer('mean_depth_per_level', torch.tensor(mean_depths, dtype=torch.float32))
        self.register_buffer('std_depth_per_level', torch.tensor(std_depths, dtype=torch.float32))
        self.box3d_tower = Tower(num_convs, channels, len(strides), norm_cfg)
        self.box3d_quat = nn.ModuleList([predictor(channels, 4 * num_classes)])
        self.box3d_ctr = nn.ModuleList([predictor(channels, 2 * num_classes)])
        self.box3d_depth = nn.ModuleList([predictor(channels, num_classes, bias=False)])
        self.box3d_size = nn.ModuleList([predictor(channels, 3 * num_classes)])
        self.box3d_conf = nn.ModuleList([predictor(channels, num_classes)])
        self.scales_proj_ctr = nn.ModuleList(LevelScale(stride) for stride in strides)
        self.scales_size = nn.ModuleList(LevelScale(1.0) for _ in strides)
        self.scales_conf = nn.ModuleList(LevelScale(1.0) for _ in strides)
        self.scales_depth = nn.ModuleList(LevelScale(0.3 * std) for std in std_depths)
        self.offsets_depth = nn.ModuleList(LevelOffset(mean) for mean in mean_depths)

    def forward(self, features: Tensor, level: int) -> dict[str, Tensor]:
        """Run on (n, C, h, w) features of a level; returns maps (n, channels, h, w) by name, classes fastest."""
        tower = self.box3d_tower.on_level(features, level)
        depth = self.scales_depth[level](self.box3d_depth[0](tower))
        return {
            'quat': self.box3d_quat[0](tower),
            'ctr': self.scales_proj_ctr[level](self.box3d_ctr[0](tower)),
            'depth': self.offsets_depth[level](depth),
            'size': self.scales_size[level](self.box3d_size[0](tower)),
            'conf': self.scales_conf[level](self.box3d_conf[0](tower)),
        }
