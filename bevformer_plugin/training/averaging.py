"""Exponential moving average of the weights, configured as MMEngine's ``EMAHook``."""

import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from mmengine.config import Config

from bevformer_plugin.errors import InputError

KNOWN = {'type', 'momentum', 'update_buffers'}
DEFAULT_MOMENTUM = 0.0002  # MMEngine's


def averages_weights(cfg: Config) -> bool:
    """Whether the config asks for an average.

    Raises:
        InputError: if ``custom_hooks`` holds what Lightning's engine cannot honour.
    """
    hooks = cfg.get('custom_hooks') or []
    for hook in hooks:
        if not isinstance(hook, dict):
            raise InputError(
                f'custom_hooks holds {hook!r}, which is no hook; --cfg-options cannot write them, put '
                "custom_hooks = [dict(type='EMAHook')] in a config"
            )
        unknown = sorted(set(hook) - KNOWN)
        if hook['type'] != 'EMAHook' or unknown:
            raise InputError(
                f'custom_hooks: under Lightning only EMAHook with {sorted(KNOWN - {"type"})} is known, '
                f'got {dict(hook)}; --engine mmengine runs any hook'
            )
    if len(hooks) > 1:
        raise InputError(f'custom_hooks holds {len(hooks)} EMAHooks, one is enough')
    return bool(hooks)


def weight_averaging(cfg: Config, device: torch.device) -> EMAWeightAveraging:
    """Lightning's callback for the config's ``EMAHook``: ``average += momentum * (weights - average)`` a step.

    What is validated and what a checkpoint's ``state_dict`` holds are the averages, as under MMEngine.

    Args:
        cfg: a config that :func:`averages_weights`.
        device: where the average is kept.
    """
    hook = cfg.custom_hooks[0]
    return EMAWeightAveraging(
        device=device, use_buffers=hook.get('update_buffers', False), decay=1 - hook.get('momentum', DEFAULT_MOMENTUM)
    )
