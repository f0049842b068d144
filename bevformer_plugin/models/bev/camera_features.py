"""Camera features of a batch, apart for each size of images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bevformer_plugin.errors import InputError

from .frames import Frame


@dataclass(frozen=True)
class CameraFeatures:
    """Camera features of those samples of a batch whose images have one padded size.

    Attributes:
        samples: places in the batch, rising.
        levels: per level (len(samples), N, C, h, w).
        image_hw: padded image size in pixels.
    """

    samples: list[int]
    levels: list[Tensor]
    image_hw: tuple[int, int]


def samples_by_image_size(frames: Sequence[Frame], batch_hw: tuple[int, int]) -> dict[tuple[int, int], list[int]]:
    """Group the places in the batch by padded image size.

    Args:
        frames: per sample; a frame without ``image_hw`` fills the batch's images.
        batch_hw: size of the batch's images, which all samples share at the top left.

    Raises:
        InputError: if a frame says to be larger than the batch's images.
    """
    sizes: dict[tuple[int, int], list[int]] = {}
    for index, frame in enumerate(frames):
        size = frame.image_hw or batch_hw
        if size[0] > batch_hw[0] or size[1] > batch_hw[1]:
            raise InputError(
                f'pad_shape {size} of sample {frame.name} is larger than the images given, {batch_hw}: give images '
                'and metas as BEVFormerDataPreprocessor returns them'
            )
        sizes.setdefault(size, []).append(index)
    return sizes


def in_batch_order(parts: Sequence[Tensor], features: Sequence[CameraFeatures]) -> Tensor:
    """Join tensors (b, ...) of the samples of each size of images to one (B, ...) in the order of the batch."""
    if len(parts) == 1:
        return parts[0]
    order = torch.tensor([index for part in features for index in part.samples]).argsort()
    return torch.cat(list(parts))[order.to(parts[0].device, non_blocking=True)]
