"""What one frame leaves behind for the next: the BEV and where the vehicle was."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from bevformer_plugin.errors import InputError


@dataclass(frozen=True)
class BEVHistory:
    """The state that streams from frame to frame; it goes in and comes out explicitly.

    Attributes:
        bev_embed: (Q, C) BEV features of the frame, detached.
        can_bus: (18,) float64 on the CPU, the frame's absolute CAN-bus vector.
        scene_token: the scene the frame belongs to.
        timestamp: seconds.
    """

    bev_embed: Tensor
    can_bus: Tensor
    scene_token: str
    timestamp: float

    @classmethod
    def of_frame(cls, bev_embed: Tensor, meta: dict) -> 'BEVHistory':
        """Remember a frame: its (Q, C) BEV features and what its meta says about pose, scene and time."""
        return cls(bev_embed.detach(), absolute_can_bus(meta), meta['scene_token'], float(meta['timestamp']))

    def seconds_to(self, meta: dict) -> float | None:
        """How much later the frame of ``meta`` is, in seconds; None if it is of another scene."""
        return float(meta['timestamp']) - self.timestamp if meta['scene_token'] == self.scene_token else None


def histories_after(bev_embed: Tensor, metas: list[dict]) -> list[BEVHistory | None]:
    """What frames leave behind; None, with a warning that names the sample, where the BEV is not finite.

    Such a BEV would spread to all later frames of its scene. Finite values whose sum is beyond float32 count as well.

    Args:
        bev_embed: (B, Q, C).
        metas: per sample the frame's meta.
    """
    finite = bev_embed.flatten(1).sum(1, dtype=torch.float32).isfinite().tolist()
    for is_finite, meta in zip(finite, metas, strict=True):
        if not is_finite:
            print_log(
                f'the BEV of sample {meta.get("sample_idx")} is not finite: what is detected in it is worthless, and '
                'the next frame of its scene starts without history. Look for weights that are not finite, or for '
                'overflow in half precision',
                logger='current',
                level=logging.WARNING,
            )
    return [
        BEVHistory.of_frame(bev, meta) if is_finite else None
        for is_finite, bev, meta in zip(finite, bev_embed, metas, strict=True)
    ]


def absolute_can_bus(meta: dict) -> Tensor:
    """The (18,) float64 CAN-bus vector of a frame, a copy: infos are never changed in place.

    Raises:
        InputError: if the vector has another length.
    """
    can_bus = torch.tensor(np.asarray(meta['can_bus']), dtype=torch.float64)
    if can_bus.shape != (18,):
        raise InputError(f'frame {meta.get("sample_idx")}: a CAN-bus vector has 18 values, got {tuple(can_bus.shape)}')
    return can_bus
