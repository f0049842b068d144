"""How the vehicle's motion between two frames enters the model."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid, PlanarMotion, bev_shift, planar_motion, rotate_bev
from bevformer_plugin.layers import AlignedHistory

from .frames import BEVHistory, Frame

MOTION_CHANNELS = 18  # translation (3), the frame's CAN-bus values (13), heading (radians), turn (degrees)

# The published weights were trained with these mistakes and need them; the defaults below are right.
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
    """Aligns the previous BEV with the current frame (paper section 3.4) and builds the motion vector.

    Attributes:
        wrap_heading: bring the heading difference into [-180, 180) degrees.
        quaternion_repeats_w: give the network (w, w, w, w) for the quaternion (w, x, y, z).
        rotate_center: None turns the previous BEV about the vehicle; (column, row) see :func:`rotate_bev`.
        rotate_interpolation: 'bilinear' or 'nearest'.
        can_bus_channels: entries of the motion vector that the network sees, the others are 0; None is all 18.
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
        if any(not 0 <= channel < MOTION_CHANNELS for channel in self.can_bus_channels or ()):
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
        fields = {**({} if preset is None else PRESETS[preset]), **fields}
        unknown = sorted(set(fields) - set(cls.__dataclass_fields__))
        if unknown:
            raise InputError(f'unknown ego_motion fields {unknown}; known: {sorted(cls.__dataclass_fields__)}')
        return cls(**fields)

    def motion(self, frames: Sequence[Frame], histories: Sequence[BEVHistory | None]) -> PlanarMotion:
        """Compute how each vehicle moved since the frame of its history; one without history stood still."""
        before = [history.frame if history else frame for frame, history in zip(frames, histories, strict=True)]
        previous, current = (torch.stack([frame.ego2global for frame in part]) for part in (before, frames))
        return planar_motion(previous, current, self.wrap_heading)

    def motion_vector(self, frames: Sequence[Frame], motion: PlanarMotion) -> Tensor:
        """Build the published CAN-bus vector, which tells the network of the motion.

        Translation since the previous frame (3, metres, global frame), the frame's CAN-bus values (13), heading
        (radians) and turn since the previous frame (degrees).

        Args:
            frames: per sample.
            motion: since their previous frames.

        Returns:
            (B, 18) float64; channels that the network does not see are 0.
        """
        can_bus = torch.stack([frame.can_bus for frame in frames])
        if self.quaternion_repeats_w:
            can_bus[:, :4] = can_bus[:, :1].clone()
        vector = torch.cat([motion.translation, can_bus, motion.heading[:, None], motion.turn[:, None]], dim=1)
        if self.can_bus_channels is None:
            return vector
        visible = torch.zeros_like(vector)
        visible[:, list(self.can_bus_channels)] = vector[:, list(self.can_bus_channels)]
        return visible

    def align(self, prev_bev: Tensor, motion: PlanarMotion, grid: BEVGrid) -> tuple[Tensor, Tensor]:
        """Turn previous BEVs, and tell how far the vehicles moved.

        Args:
            prev_bev: (B, Q, C).
            motion: of the B vehicles.
            grid: the BEV grid.

        Returns:
            The turned BEVs (B, Q, C), and the shift (B, 2) in fractions of the grid, (x, y).
        """
        if not self.align_history:
            return prev_bev, torch.zeros(len(prev_bev), 2, device=prev_bev.device)
        turned = rotate_bev(prev_bev, motion.turn, grid, self.rotate_center, self.rotate_interpolation)
        return turned, bev_shift(motion, grid).to(prev_bev.device, non_blocking=True)

    def aligned(
        self, histories: Sequence[BEVHistory | None], motion: PlanarMotion, grid: BEVGrid, like: Tensor
    ) -> AlignedHistory:
        """Turn the histories of a batch into the directions of its current frames.

        Args:
            histories: per sample what its previous frame left behind, or None.
            motion: of the vehicles since then.
            grid: the BEV grid.
            like: (Q, C), of the type and on the device of the BEV.
        """
        exists = torch.tensor([history is not None for history in histories])
        if not exists.any():  # nothing to turn, and no memory for it
            blank = like.new_zeros(()).expand(len(histories), *like.shape)
            return AlignedHistory(blank, exists, torch.zeros(len(histories), 2, device=like.device))
        blank = torch.zeros_like(like)
        prev_bev = torch.stack([blank if history is None else history.bev_embed for history in histories])
        turned, shift = self.align(prev_bev, motion, grid)
        return AlignedHistory(turned, exists, shift)
