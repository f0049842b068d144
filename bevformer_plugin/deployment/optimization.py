"""A detector for inference alone: the same weights, laid out and rounded for speed."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from copy import deepcopy

import torch
from mmcv.cnn import fuse_conv_bn
from mmcv.ops import ModulatedDeformConv2d
from mmdet3d.structures import Det3DDataSample
from torch import Tensor, nn
from torch._inductor.cpu_vec_isa import pick_vec_isa
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from bevformer_plugin.errors import InputError
from bevformer_plugin.models import BEVFormer, BEVHistory, EncodedFrames, Frame
from bevformer_plugin.ops import native

from .freed_memory import keep_freed_memory


class FusedImageFeatures(nn.Module):
    """Runs backbone and neck in a given type, channels last, with folded batch normalisation, compiled where it pays.

    Args:
        img_backbone: image backbone.
        img_neck: neck that follows it.
        dtype: in which both compute.
    """

    def __init__(self, img_backbone: nn.Module, img_neck: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.img_backbone = fuse_conv_bn(img_backbone)
        _fuse_deform_convs(self.img_backbone)
        self.img_neck = fuse_conv_bn(img_neck)
        self.dtype = dtype
        for part in (self.img_backbone, self.img_neck):
            part.to(dtype=dtype)
            part.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # not among its overloads
        self.compute = self._features
        if self._pays_to_compile():
            options = {'freezing': True, 'cpp.simdlen': pick_vec_isa().bit_width()}
            self.compute = torch.compile(self._features, dynamic=False, options=options)

    def _pays_to_compile(self) -> bool:
        """Tell whether it runs on a CPU with a C++ compiler and vector instructions.

        The width of the processor's vectors is told to the compiler although it finds the same, because what it is
        told is part of the key under which a compiled graph is kept on the disk. Without it, a graph that was written
        for another processor, or another ``ATEN_CPU_CAPABILITY``, is taken from there and skips every other value, or
        writes beyond the end.
        """
        on_cpu = next(self.parameters()).device.type == 'cpu'
        return bool(on_cpu and native.load_library() and pick_vec_isa())

    def _features(self, imgs: Tensor) -> list[Tensor]:
        return list(self.img_neck(self.img_backbone(imgs)))

    @torch.no_grad()
    def forward(self, imgs: Tensor) -> list[Tensor]:
        """Compute features of (I, 3, H, W) images of any type, a list over levels of (I, C, h, w)."""
        with torch.autocast(imgs.device.type, enabled=False):  # it has its type already
            return self.compute(imgs.to(dtype=self.dtype, memory_format=torch.channels_last))


def _fuse_deform_convs(module: nn.Module) -> None:
    """Fold batch normalisation into the deformable convolutions before it, which ``fuse_conv_bn`` does not know."""
    convolution = None
    for name, child in module.named_children():
        if isinstance(convolution, ModulatedDeformConv2d) and isinstance(child, _BatchNorm):
            assert child.running_mean is not None and child.running_var is not None
            convolution.weight, convolution.bias = fuse_conv_bn_weights(
                *(convolution.weight, convolution.bias, child.running_mean, child.running_var),
                *(child.eps, child.weight, child.bias),
            )
            setattr(module, name, nn.Identity())
        else:
            _fuse_deform_convs(child)
        convolution = child


class PassedLevels(nn.Module):
    """Stands where the neck was, which :class:`FusedImageFeatures` has run already.

    Args:
        in_channels: channels of each level.
    """

    def __init__(self, in_channels: Sequence[int]) -> None:
        super().__init__()
        self.in_channels = list(in_channels)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Return the levels as they are."""
        return levels


class OptimizedDetector(nn.Module):
    """The copy of a detector that detects faster and does nothing else; see :func:`optimize_for_inference`.

    Args:
        detector: it stays as it is.
        dtype: float32 or bfloat16.

    Attributes:
        detector: the copy. Its steps are run under :meth:`precision`.
    """

    def __init__(self, detector: BEVFormer, dtype: torch.dtype) -> None:
        super().__init__()
        detector.reset_streams()
        self.dtype = dtype
        self.detector = deepcopy(detector).eval().requires_grad_(False)
        levels = [detector.bev_encoder.cams_embeds.shape[-1]] * detector.num_levels
        features = FusedImageFeatures(self.detector.img_backbone, self.detector.img_neck, dtype)
        self.detector.img_backbone, self.detector.img_neck = features, PassedLevels(levels)

    @property
    def data_preprocessor(self) -> nn.Module:
        """Return the detector's preprocessor."""
        return self.detector.data_preprocessor

    def precision(self) -> AbstractContextManager:
        """Make the autocast context of BEV encoder and heads; it does nothing in float32."""
        device = self.detector.bev_encoder.cams_embeds.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    # With the arguments of torch's own, since trainers call it in all of its forms.
    def to(self, *arguments: object, **keywords: object) -> 'OptimizedDetector':
        """Move the detector as :meth:`torch.nn.Module.to` does, and tell its preprocessor the device."""
        self.detector.to(*arguments, **keywords)
        return self

    def train(self, mode: bool = True) -> 'OptimizedDetector':
        """Stay in eval mode, whatever mode is asked for: it cannot be trained."""
        return super().train(False)

    def frames_of(self, metas: Sequence[dict]) -> list[Frame]:
        """Read the frames of a batch as :meth:`BEVFormer.frames_of`."""
        return self.detector.frames_of(metas)

    @torch.no_grad()
    def encode(self, imgs: Tensor, frames: Sequence[Frame], histories: Sequence[BEVHistory | None]) -> EncodedFrames:
        """Encode frames as :meth:`BEVFormer.encode`; the BEV is float32."""
        with self.precision():
            return self.detector.encode(imgs, frames, histories)

    @torch.no_grad()
    def predict(self, batch_inputs_dict: dict, batch_data_samples: list[Det3DDataSample]) -> list[Det3DDataSample]:
        """Predict as :meth:`BEVFormer.predict`."""
        with self.precision():
            return self.detector.predict(batch_inputs_dict, batch_data_samples)

    def forward(
        self, inputs: dict, data_samples: list[Det3DDataSample], mode: str = 'predict'
    ) -> list[Det3DDataSample]:
        """Predict, called as MMEngine calls a model.

        Raises:
            InputError: for another mode than 'predict'.
        """
        if mode != 'predict':
            raise InputError(f"an optimised detector is for inference: its mode is 'predict', not {mode!r}")
        return self.predict(inputs, data_samples)


def optimize_for_inference(detector: BEVFormer, dtype: torch.dtype | None = None) -> OptimizedDetector:
    """Make a copy of a detector that detects faster and cannot be trained or saved.

    Batch normalisation goes into the convolutions before it, weights and images are laid out with their channels
    last. On a CPU with a C++ compiler, backbone and neck are compiled into one graph when they see the first images of
    a size, which takes some seconds, and longer for a ResNet-101; not for a processor without vector instructions (or
    with ``ATEN_CPU_CAPABILITY=default``), for which PyTorch writes pooling that is not valid C++. With bfloat16,
    backbone and neck compute in it throughout, the rest under autocast, which keeps projection, sampling locations and
    boxes in float32; the BEV that goes from frame to frame is float32 as well.

    On a CPU the whole process keeps freed memory, see :func:`keep_freed_memory`.

    Args:
        detector: on the device it will run on, with its weights loaded.
        dtype: float32 or bfloat16; None takes bfloat16 where the device computes with it.

    Raises:
        InputError: for another dtype.
    """
    device = detector.bev_encoder.cams_embeds.device
    if dtype is None:
        dtype = torch.bfloat16 if computes_in_bfloat16(device) else torch.float32
    if dtype not in (torch.float32, torch.bfloat16):
        raise InputError(f'dtype is torch.float32 or torch.bfloat16, not {dtype}')
    if device.type == 'cpu':
        keep_freed_memory()
    return OptimizedDetector(detector, dtype)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Tell whether a device has instructions for bfloat16; without, its products take longer than those of float32."""
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return device.type == 'cpu' and any(capabilities.get(name, False) for name in ('avx512_bf16', 'amx_bf16'))
