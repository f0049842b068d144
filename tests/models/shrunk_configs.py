"""Models of the released configs, shrunk until a step takes milliseconds; everything else stays as released."""

import zlib
from pathlib import Path

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

import bevformer_plugin  # noqa: F401  fills the registries
from tests.helpers.repository import CONFIGS

NAMES = ('bevformer_tiny', 'bevformer_nano')
DECODER = {
    'model.img_neck.out_channels': 32,
    'model.grid_mask': None,
    'model.ego_motion.rotate_center': None,
    'model.heads.detection.queries.num_query': 20,
    **{
        f'model.{part}.{setting}': value
        for part in ('bev_encoder', 'heads.detection')
        for setting, value in (('num_heads', 4), ('feedforward_channels', 48), ('dropout', 0.0))
    },
    'model.heads.detection.decoder.num_layers': 2,
}
SHRUNK = {
    # The published centre of rotation, cell (100, 100), would turn all history out of so small a grid.
    'bevformer_tiny': {
        'model.img_backbone.init_cfg': None,
        'model.img_backbone.depth': 18,
        'model.img_backbone.base_channels': 4,
        'model.img_backbone.strides': (1, 2, 2, 1),
        'model.img_backbone.dilations': (1, 1, 1, 1),
        'model.img_neck.in_channels': [32],
        **DECODER,
    },
    'bevformer_small': {
        'model.img_backbone.depth': 50,
        'model.img_backbone.base_channels': 4,
        'model.img_neck.in_channels': [128],
        **DECODER,
    },
    'bevformer_base': {
        'model.img_backbone.depth': 50,
        'model.img_backbone.base_channels': 4,
        'model.img_neck.in_channels': [32, 64, 128],
        **DECODER,
    },
    # Statistics of a batch, unlike everything tested here, mix its samples.
    'bevformer_nano': {
        'model.img_backbone.base_channels': 4,
        'model.img_backbone.stem_channels': 4,
        'model.img_backbone.norm_eval': True,
        'model.img_neck.in_channels': [8, 16],
        'model.img_neck.out_channels': 32,
        'model.heads.detection.queries.num_query': 20,
        'model.bev_encoder.feedforward_channels': 48,
        'model.heads.detection.feedforward_channels': 48,
    },
}
# Of a config that inherits from one of these and has other levels than it.
SHRUNK_CHILDREN = {'bevformer_base_global': {'model.img_neck.in_channels': [128]}}


def build_shrunk(
    name: str,
    num_cameras: int = 6,
    bev_grid: tuple[int, int] = (10, 12),
    point_cloud_range: tuple[float, ...] = (-51.2, -44.8, -5.0, 51.2, 44.8, 3.0),
    changes: dict | None = None,
    seed: int = 0,
) -> nn.Module:
    """A released config's detector, shrunk, in training mode, with seeded weights of which none is constant.

    ``changes`` are made to the shrunk config; ``name`` may be of a config that inherits from a shrunk one.
    """
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    shrunk = next(SHRUNK[key] for key in SHRUNK if Path(name).name.startswith(key))
    absent = tuple(f'model.heads.{head}.' for head, config in cfg.model.heads.items() if config is None)
    cfg.merge_from_dict(
        {
            **{setting: value for setting, value in shrunk.items() if not setting.startswith(absent)},
            **SHRUNK_CHILDREN.get(Path(name).name, {}),
            **(changes or {}),
            'model.num_cameras': num_cameras,
            'model.bev_grid': bev_grid,
            'model.point_cloud_range': point_cloud_range,
        }
    )
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        model = MODELS.build(cfg.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(('bev_encoder.', 'heads.detection.')):
                # Seeded by the name, so that the weights do not depend on the order of the modules.
                generator = torch.Generator().manual_seed(zlib.crc32(f'{seed} {name}'.encode()))
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise * (parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1))
    return model.train()


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Gradients of a loss by parameter; what it does not reach has 0."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def assert_same_gradients(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal to 1e-3 of each parameter's largest gradient: float32 sums of other order."""
    assert ours.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().clamp(min=1e-6)
        torch.testing.assert_close(
            ours[name] / scale, gradient / scale, atol=1e-3, rtol=0, msg=lambda text, name=name: f'{name}: {text}'
        )
