"""What a frame of BEVFormerV2 leaves behind: the camera features of the last frames, which BEVs are built from."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.logging import print_log
from torch import Tensor

from .camera_features import CameraFeatures
from .encoded_frames import EncodedFrames
from .frames import Frame


@dataclass(frozen=True)
class KeptFrame:
    """Camera features of one frame, from which its BEV can be built in the LiDAR frame of any later one.

    Attributes:
        levels: per level (N, C, h, w), detached.
        image_hw: padded image size in pixels.
        frame: calibration, pose and time of the images.
        position: position of the keyframe in its scene; where that is not known, of the frame in its stream.
    """

    levels: list[Tensor]
    image_hw: tuple[int, int]
    frame: Frame
    position: int


@dataclass(frozen=True)
class FeatureHistory:
    """The state that one frame leaves behind for the next ones; it goes in and comes out explicitly.

    Attributes:
        kept: the last frames of a scene, oldest first. Those whose features were not finite are not among them.
        frame: the last frame, whether it was kept or not.
        position: of the last frame.
    """

    kept: tuple[KeptFrame, ...]
    frame: Frame
    position: int

    def seconds_to(self, frame: Frame) -> float | None:
        """Tell how much later than the last frame another one is, in seconds; None if it is of another scene."""
        return self.frame.seconds_to(frame)

    def at(self, position: int) -> KeptFrame | None:
        """Find the kept frame at a position."""
        return next((kept for kept in self.kept if kept.position == position), None)


@dataclass(frozen=True)
class EncodedParallelFrames(EncodedFrames):
    """As :class:`EncodedFrames`, of a model whose frames leave camera features behind instead of a BEV.

    Attributes:
        left_behind: per sample the history for its next frame.
    """

    left_behind: list[FeatureHistory]

    def histories(self) -> list[FeatureHistory]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the histories for the next frames."""
        return self.left_behind


def next_position(history: FeatureHistory | None, frame: Frame) -> int:
    """Tell the position of a frame: in its scene where that is known, else one after the last of its stream."""
    if frame.index is not None:
        return frame.index
    return 0 if history is None else history.position + 1


def left_behind(
    features: Sequence[CameraFeatures], frames: Sequence[Frame], histories: Sequence[FeatureHistory | None], reach: int
) -> list[FeatureHistory]:
    """Make the histories for the next frames of a batch.

    A frame whose features are not finite is left out with a warning, since it would spoil all frames that it is
    fused with.

    Args:
        features: of all samples, one entry for each size of images.
        frames: per sample.
        histories: per sample what its frames before left behind, or None.
        reach: how many positions before the next frame a kept frame can be.
    """
    left: dict[int, FeatureHistory] = {}
    for part in features:
        levels = [level.detach() for level in part.levels]
        sums = [level.flatten(1).sum(1, dtype=torch.float32) for level in levels]
        finite = torch.stack(sums).isfinite().all(0).tolist() if reach else []
        for place, sample in enumerate(part.samples):
            frame, history = frames[sample], histories[sample]
            position = next_position(history, frame)
            kept = () if history is None else history.kept
            if reach and finite[place]:
                kept = (*kept, KeptFrame([level[place] for level in levels], part.image_hw, frame, position))
            elif reach:
                _warn_of(frame)
            kept = tuple(entry for entry in kept if entry.position > position - reach)
            left[sample] = FeatureHistory(kept, frame, position)
    return [left[sample] for sample in range(len(frames))]


def _warn_of(frame: Frame) -> None:
    print_log(
        f'the camera features of sample {frame.name} are not finite: what is detected in it is worthless, and later '
        'frames of its scene go without it. Look for weights that are not finite, or for overflow in half precision',
        logger='current',
        level=logging.WARNING,
    )
