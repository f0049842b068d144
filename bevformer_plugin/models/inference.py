"""A detector for inference alone: the same weights, laid out and rounded for speed."""
from collections.abc import Callable
from functools import partial

import torch
from mmcv.cnn import fuse_conv_bn
from torch import Tensor

from .bevformer import BEVFormer


def optimize_for_inference(detector: BEVFormer, dtype: torch.dtype | None = None) -> BEVFormer:
    """Change a detector, in place, to detect faster; it cannot be trained or saved afterwards.

    Batch normalisation goes into the convolutions before it, weights and images are laid out with their channels
    last. With bfloat16, backbone and neck compute in it throughout, the rest under autocast, which keeps projection,
    sampling locations and boxes in float32; the BEV that goes from frame to frame is float32 as well.

    Args:
        detector: on the device it will run on, with its weights loaded.
        dtype: float32 or bfloat16; None takes bfloat16 where the device computes with it.

    Returns:
        The detector.

    Raises:
        ValueError: for another dtype.
    """
    if dtype is None:
        dtype = torch.bfloat16 if computes_in_bfloat16(detector.data_preprocessor.mean.device) else torch.float32
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f'dtype is torch.float32 or torch.bfloat16, not {dtype}')
    detector.eval().requires_grad_(False)
    detector.img_backbone = fuse_conv_bn(detector.img_backbone)
    detector.img_neck = fuse_conv_bn(detector.img_neck)
    for part in (detector.img_backbone, detector.img_neck):
        part.to(dtype=dtype, memory_format=torch.channels_last)
    detector.extract_feat = partial(_extract, detector.extract_feat, dtype)
    if dtype == torch.bfloat16:
        head, device = detector.pts_bbox_head, detector.data_preprocessor.mean.device.type
        head.encode, head.decode = (partial(_autocast, step, device, dtype) for step in (head.encode, head.decode))
    return detector


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products of bfloat16; without, they take longer than those of float32."""
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return device.type == 'cpu' and any(capabilities.get(name, False) for name in ('avx512_bf16', 'amx_bf16'))


def _extract(extract_feat: Callable, dtype: torch.dtype, imgs: Tensor) -> list[Tensor]:
    """Camera features of images in any type."""
    return extract_feat(imgs.to(dtype))


def _autocast(step: Callable, device: str, dtype: torch.dtype, *inputs: object) -> Tensor | dict[str, Tensor]:
    """A step of the head, its positional arguments as they are."""
    with torch.autocast(device, dtype):
        return step(*inputs)
