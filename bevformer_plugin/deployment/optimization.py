"""A detector for inference alone: the same weights, laid out and rounded for speed."""

from collections.abc import Callable
from functools import partial

import torch
from mmcv.cnn import fuse_conv_bn
from mmcv.ops import ModulatedDeformConv2d
from torch import Tensor
from torch._inductor.cpu_vec_isa import pick_vec_isa

from bevformer_plugin.errors import InputError
from bevformer_plugin.models.detectors.bevformer import BEVFormer
from bevformer_plugin.ops import native

from .freed_memory import keep_freed_memory


def optimize_for_inference(detector: BEVFormer, dtype: torch.dtype | None = None) -> BEVFormer:
    """Change a detector, in place, to detect faster; it cannot be trained or saved afterwards.

    Batch normalisation goes into the convolutions before it, weights and images are laid out with their channels
    last. On a CPU with a C++ compiler, backbone and neck are compiled into one graph when they see the first images of
    a size, which takes some seconds; not those with deformable convolutions, each of which would break the graph: that
    takes minutes and gains nothing; and not for a processor without vector instructions (or with
    ``ATEN_CPU_CAPABILITY=default``), for which PyTorch writes pooling that is not valid C++. With bfloat16, backbone
    and neck compute in it throughout, the rest under autocast, which keeps projection, sampling locations and boxes in
    float32; the BEV that goes from frame to frame is float32 as well.

    On a CPU the whole process keeps freed memory, see :func:`keep_freed_memory`.

    Args:
        detector: on the device it will run on, with its weights loaded.
        dtype: float32 or bfloat16; None takes bfloat16 where the device computes with it.

    Returns:
        The detector.

    Raises:
        InputError: for another dtype.
    """
    if dtype is None:
        dtype = torch.bfloat16 if computes_in_bfloat16(detector.data_preprocessor.mean.device) else torch.float32
    if dtype not in (torch.float32, torch.bfloat16):
        raise InputError(f'dtype is torch.float32 or torch.bfloat16, not {dtype}')
    if detector.data_preprocessor.mean.device.type == 'cpu':
        keep_freed_memory()
    detector.eval().requires_grad_(False)
    detector.img_backbone = fuse_conv_bn(detector.img_backbone)
    detector.img_neck = fuse_conv_bn(detector.img_neck)
    for part in (detector.img_backbone, detector.img_neck):
        part.to(dtype=dtype, memory_format=torch.channels_last)
    detector.image_features = partial(_image_features, _compiled(detector), dtype)
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


def _compiled(detector: BEVFormer) -> Callable[[Tensor], list[Tensor]]:
    """The detector's ``image_features``, compiled where it pays; weights become constants.

    The width of the processor's vectors is said although PyTorch finds the same, because what is said is part of the
    key under which a compiled graph is kept on the disk. Without it, a graph that was written for another processor,
    or another ``ATEN_CPU_CAPABILITY``, is taken from there and skips every other value, or writes beyond the end.
    """
    on_cpu = detector.data_preprocessor.mean.device.type == 'cpu'
    whole = not any(isinstance(module, ModulatedDeformConv2d) for module in detector.img_backbone.modules())
    if not (on_cpu and whole and native.load_library() and pick_vec_isa()):
        return detector.image_features
    options = {'freezing': True, 'cpp.simdlen': pick_vec_isa().bit_width()}
    return torch.compile(detector.image_features, dynamic=False, options=options)


@torch.no_grad()
def _image_features(image_features: Callable, dtype: torch.dtype, imgs: Tensor) -> list[Tensor]:
    """Camera features of images in any type; their layout is the convolutions'."""
    return image_features(imgs.to(dtype=dtype, memory_format=torch.channels_last))


def _autocast(step: Callable, device: str, dtype: torch.dtype, *inputs: object) -> Tensor | dict[str, Tensor]:
    """A step of the head, its positional arguments as they are."""
    with torch.autocast(device, dtype):
        return step(*inputs)
