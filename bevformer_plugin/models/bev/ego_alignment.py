"""How the vehicle's motion between two frames enters the model."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid, bev_shift, relative_can_bus, rotate_bev

QUATERNION = slice(3, 7)

# The published weights were trained with these; the defaults below are right where they are not.
PRESETS = {
    'official_v1': {
        'wrap_heading': False,
        'quaternion_repeats_w': True,
        'rotate_center': (100.0, 100.0),
        'rotate_interpolation': 'nearest',
    },
}


@dataclass(frozen=True)
class EgoAlignment:
    """Aligns the previous BEV with the current frame (paper section 3.4) and prepares the CAN-bus vector.

    Attributes:
        wrap_heading: bring the heading difference into [-180, 180) degrees.
        quaternion_repeats_w: give the network (w, w, w, w) for the quaternion (w, x, y, z).
        rotate_center: None turns the previous BEV about the vehicle; (column, row) see :func:`rotate_bev`.
        rotate_interpolation: 'bilinear' or 'nearest'.
        can_bus_channels: entries of the CAN-bus vector the network sees, the others are 0; None is all 18.
        align_history: False leaves the previous BEV where it was, the paper's ablation.

    Raises:
        InputError: for a channel outside 0..17 or an unknown interpolation.
    """

    wrap_heading: bool = True
    quaternion_repeats_w: bool = False
    rotate_center: tuple[float, float] | None = None
    rotate_interpolation: str = 'bilinear'
    can_bus_channels: tuple[int, ...] | None = None
    align_history: bool = True

    def __post_init__(self) -> None:
        if self.rotate_interpolation not in ('bilinear', 'nearest'):
            raise InputError(f"rotate_interpolation is 'bilinear' or 'nearest', got {self.rotate_interpolation!r}")
        if any(not 0 <= channel < 18 for channel in self.can_bus_channels or ()):
            raise InputError(f'can_bus_channels are numbers from 0 to 17, got {self.can_bus_channels}')

    @classmethod
    def from_config(cls, config: dict | None) -> 'EgoAlignment':
        """Build from ``dict(preset='official_v1')`` or from explicit fields, which win over the preset's.

        Raises:
            InputError: for an unknown preset or field.
        """
        fields = dict(config or {})
        preset = fields.pop('preset', None)
        if preset is not None and preset not in PRESETS:
            raise InputError(f'unknown ego_motion preset {preset!r}; known: {sorted(PRESETS)}')
        fields = {**PRESETS.get(preset, {}), **fields}
        unknown = sorted(set(fields) - set(cls.__dataclass_fields__))
        if unknown:
            raise InputError(f'unknown ego_motion fields {unknown}; known: {sorted(cls.__dataclass_fields__)}')
        return cls(**fields)

    def relative(self, current: Tensor, previous: Tensor | None) -> Tensor:
        """(18,) float64 CAN-bus vector relative to the previous frame; None (no history) gives zero differences."""
        can_bus = relative_can_bus(current, previous, self.wrap_heading)
        if self.quaternion_repeats_w:
            can_bus[QUATERNION] = can_bus[QUATERNION.start].clone()
        return can_bus

    def visible_channels(self, can_bus: Tensor) -> Tensor:
        """(B, 18) relative vectors with the channels that the network does not see set to 0."""
        if self.can_bus_channels is None:
            return can_bus
        seen = torch.zeros_like(can_bus)
        seen[:, list(self.can_bus_channels)] = can_bus[:, list(self.can_bus_channels)]
        return seen

    def align(self, prev_bev: Tensor, can_bus: Tensor, grid: BEVGrid) -> tuple[Tensor, Tensor]:
        """Rotate the previous BEV by the turn and tell how far the vehicle moved.

        Args:
            prev_bev: (B, Q, C).
            can_bus: (B, 18) relative.
            grid: the BEV grid.

        Returns:
            The rotated BEV (B, Q, C), and the shift (B, 2) in fractions of the grid, (x, y).
        """
        if not self.align_history:
            return prev_bev, torch.zeros(len(prev_bev), 2, device=prev_bev.device)
        rotated = rotate_bev(prev_bev, can_bus[:, 17], grid, self.rotate_center, self.rotate_interpolation)
        return rotated, bev_shift(can_bus, grid).to(prev_bev.device)
