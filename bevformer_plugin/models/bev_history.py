"""What one frame leaves behind for the next: the BEV and where the vehicle was."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


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

    def leads_to(self, meta: dict, max_time_gap: float) -> bool:
        """Whether the frame of ``meta`` continues this one: same scene, later, by at most ``max_time_gap`` seconds."""
        gap = float(meta['timestamp']) - self.timestamp
        return meta['scene_token'] == self.scene_token and 0 < gap <= max_time_gap


def absolute_can_bus(meta: dict) -> Tensor:
    """The (18,) float64 CAN-bus vector of a frame, a copy: infos are never changed in place.

    Raises:
        ValueError: if the vector has another length.
    """
    can_bus = torch.tensor(np.asarray(meta['can_bus']), dtype=torch.float64)
    if can_bus.shape != (18,):
        raise ValueError(f'frame {meta.get("sample_idx")}: a CAN-bus vector has 18 values, got {tuple(can_bus.shape)}')
    return can_bus
