"""What all heads see of a batch: the BEV, the camera features, and the frames they are of."""

import logging
from dataclasses import dataclass, field

import torch
from mmengine.logging import print_log
from torch import Tensor

from .camera_features import CameraFeatures
from .frames import BEVHistory, Frame
from .proposals import Proposals


@dataclass(frozen=True)
class EncodedFrames:
    """One frame of every sample of a batch after backbone, neck and BEV encoder.

    Attributes:
        bev_embed: (B, Q, C).
        camera_features: of the batch, one for each size of images.
        frames: per sample.
        proposals: per sample what the perspective head proposes; None where no head of the detector starts from it.
    """

    bev_embed: Tensor
    camera_features: list[CameraFeatures]
    frames: list[Frame]
    proposals: list[Proposals] | None = field(default=None, kw_only=True)

    def histories(self) -> list[BEVHistory | None]:
        """Make the histories for the next frames; a BEV that is not finite gives None and a warning with its sample.

        Such a BEV would spread to all later frames of its scene. Finite values whose sum is beyond float32 count as
        not finite as well.
        """
        finite = self.bev_embed.flatten(1).sum(1, dtype=torch.float32).isfinite().tolist()
        for is_finite, frame in zip(finite, self.frames, strict=True):
            if not is_finite:
                print_log(
                    f'the BEV of sample {frame.name} is not finite: what is detected in it is worthless, and the next '
                    'frame of its scene starts without history. Look for weights that are not finite, or for overflow '
                    'in half precision',
                    logger='current',
                    level=logging.WARNING,
                )
        return [
            BEVHistory(bev.detach(), frame) if is_finite else None
            for is_finite, bev, frame in zip(finite, self.bev_embed, self.frames, strict=True)
        ]
