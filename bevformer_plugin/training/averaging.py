"""Exponential moving average of the weights, configured like MMEngine's ``EMAHook``."""

import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from mmengine.config import Config

from bevformer_plugin.errors import InputError

EMA_HOOK_SETTINGS = {'type', 'momentum', 'update_buffers'}
DEFAULT_MOMENTUM = 0.0002  # the default of MMEngine's EMAHook


def averages_weights(cfg: Config) -> bool:
    """Tell whether the config asks for an average of the weights.

    Raises:
        InputError: if ``custom_hooks`` holds anything but one well-formed ``EMAHook``, which is all that Lightning's
            engine can honour.
    """
    hooks = cfg.get('custom_hooks') or []
    if not isinstance(hooks, list | tuple):
        raise InputError(f'custom_hooks is a list of hooks, got {hooks!r}')
    for hook in hooks:
        if not isinstance(hook, dict):
            raise InputError(
                f'custom_hooks holds {hook!r}, which is no hook; --cfg-options cannot write them, put '
                "custom_hooks = [dict(type='EMAHook')] in a config"
            )
        unknown = sorted(set(hook) - EMA_HOOK_SETTINGS)
        if hook.get('type') != 'EMAHook' or unknown:
            raise InputError(
                f'custom_hooks: under Lightning only EMAHook with {sorted(EMA_HOOK_SETTINGS - {"type"})} is known, '
                f'got {dict(hook)}; --engine mmengine runs any hook'
            )
        _check_values(hook)
    if len(hooks) > 1:
        raise InputError(f'custom_hooks holds {len(hooks)} EMAHooks, one is enough')
    return bool(hooks)


def _check_values(hook: dict) -> None:
    """Refuse settings of an ``EMAHook`` of another type or outside of their range."""
    momentum, update_buffers = hook.get('momentum', DEFAULT_MOMENTUM), hook.get('update_buffers', False)
    if isinstance(momentum, bool) or not isinstance(momentum, int | float) or not 0 < momentum < 1:
        raise InputError(f'custom_hooks: momentum of EMAHook is a number between 0 and 1, got {momentum!r}')
    if not isinstance(update_buffers, bool):
        raise InputError(f'custom_hooks: update_buffers of EMAHook is True or False, got {update_buffers!r}')


def weight_averaging(cfg: Config, device: torch.device) -> EMAWeightAveraging:
    """Build Lightning's callback for the config's ``EMAHook``.

    After every step ``average += momentum * (weights - average)``. As under MMEngine, validation uses the averages,
    and they are the ``state_dict`` of checkpoints.

    Args:
        cfg: a config for which :func:`averages_weights` is true.
        device: the device that holds the averages.
    """
    hook = cfg.custom_hooks[0]
    return EMAWeightAveraging(
        device=device, use_buffers=hook.get('update_buffers', False), decay=1 - hook.get('momentum', DEFAULT_MOMENTUM)
    )
