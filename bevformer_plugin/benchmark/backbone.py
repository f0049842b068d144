"""How long a backbone with deformable convolutions takes, beside the same with ordinary ones."""

import statistics
from copy import deepcopy

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from bevformer_plugin.deployment import keep_freed_memory
from bevformer_plugin.errors import InputError
from bevformer_plugin.ops import DEFORM_CONV_BACKENDS, set_deform_conv_backend

from .machine import describe_machine
from .timing import timed

ORDINARY = 'ordinary convolutions'
FORWARD, BACKWARD = 'forward', 'backward'


def benchmark_backbone(cfg: Config, images: int = 6, rounds: int = 3, training: bool = True) -> dict:
    """Time a config's image backbone in float32 with each backend of deformable convolution, and without any.

    In every round each version runs once in turn, in one process.

    Args:
        cfg: with ``model`` and ``train_dataloader.dataset.image_size``.
        images: that many at once, of the padded size of the config's.
        rounds: number of measured rounds, which follow one to warm up.
        training: whether to measure forward and backward pass of training too, which keeps all activations in memory.

    Returns:
        ``settings`` and ``versions``: per version and scope ``seconds`` (a value per round) and ``ratio`` (the median
        over the rounds of its time over that of the ordinary convolutions in the same round).

    Raises:
        InputError: for fewer than one image or round, or a backbone without deformable convolutions.
    """
    for name, number in (('images', images), ('rounds', rounds)):
        if number < 1:
            raise InputError(f'{name} must be at least 1, not {number}')
    if not cfg.model.img_backbone.get('dcn'):
        raise InputError(f"model.img_backbone of {cfg.filename} has no 'dcn': there is nothing to compare")
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    if device.type == 'cpu':
        keep_freed_memory()
    backends = [name for name, backend in DEFORM_CONV_BACKENDS.items() if backend.supports(device.type, torch.float32)]
    deformable, ordinary = (_build(cfg, dcn).to(device) for dcn in (True, False))
    batch = _images(cfg, images).to(device, memory_format=torch.channels_last)
    versions = {ORDINARY: (ordinary, None), **{name: (deformable, name) for name in backends}}
    scopes = {FORWARD: _forward, **({BACKWARD: _backward} if training else {})}
    seconds = {name: {scope: [] for scope in scopes} for name in versions}
    try:
        for number in range(rounds + 1):
            for scope, measure in scopes.items():
                for name, (backbone, backend) in versions.items():
                    set_deform_conv_backend(backend)
                    measured = measure(backbone, batch)
                    if number:
                        seconds[name][scope].append(measured)
    finally:
        set_deform_conv_backend(None)
    report = {
        name: {
            scope: {
                'seconds': times,
                'ratio': statistics.median(
                    own / other for own, other in zip(times, seconds[ORDINARY][scope], strict=True)
                ),
            }
            for scope, times in of_scopes.items()
        }
        for name, of_scopes in seconds.items()
    }
    return {'settings': {**describe_machine(), 'images': tuple(batch.shape)}, 'versions': report}


def _build(cfg: Config, dcn: bool) -> nn.Module:
    """Build the backbone, deformable with offsets of some pixels or with ordinary convolutions in their places."""
    torch.manual_seed(0)
    backbone = deepcopy(cfg.model.img_backbone)
    backbone.init_cfg = None  # no download
    if not dcn:
        backbone.pop('dcn')
        backbone.pop('stage_with_dcn')
    built = MODELS.build(backbone)
    built.init_weights()
    for module in built.modules():
        if hasattr(module, 'conv_offset'):
            nn.init.normal_(module.conv_offset.weight, std=1e-3)
            nn.init.normal_(module.conv_offset.bias, std=2)
    return built.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # not among its overloads


def _images(cfg: Config, images: int) -> Tensor:
    """Draw normalised images (images, 3, H, W) of the padded size of the config's."""
    divisor = MODELS.build(cfg.model.data_preprocessor).pad_size_divisor
    width, height = (-(-pixels // divisor) * divisor for pixels in cfg.train_dataloader.dataset.image_size)
    return torch.randn(images, 3, height, width, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _forward(backbone: nn.Module, batch: Tensor) -> float:
    """Measure the seconds of inference."""
    backbone.eval()
    return timed(lambda: backbone(batch))[0]


def _backward(backbone: nn.Module, batch: Tensor) -> float:
    """Measure the seconds of the backward pass of training."""
    backbone.train()
    total = sum(level.square().mean() for level in backbone(batch))
    assert isinstance(total, Tensor)
    seconds, _ = timed(total.backward)
    backbone.zero_grad()
    return seconds


def backbone_table(report: dict) -> str:
    """Format the report of :func:`benchmark_backbone` as a table for a terminal."""
    lines = [
        ', '.join(f'{key}: {value}' for key, value in report['settings'].items()),
        f'{"":<24}{"scope":<12}{"median s":>10}{"ratio":>8}',
    ]
    for name, scopes in report['versions'].items():
        for scope, figures in scopes.items():
            median = statistics.median(figures['seconds'])
            lines.append(f'{name:<24}{scope:<12}{median:>10.3f}{figures["ratio"]:>8.2f}')
    lines.append('ratio: median over the rounds of its time over that of the ordinary convolutions')
    return '\n'.join(lines)
