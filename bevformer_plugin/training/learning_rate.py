"""Scaling of the learning rate with the batch: a config declares for which batch its learning rate is meant."""

from collections.abc import Callable
from math import sqrt

from mmengine.config import Config

from bevformer_plugin.errors import InputError

# By which factor the learning rate grows with the ratio of the samples of a step to those of the base batch.
SCALING_RULES: dict[str, Callable[[float], float]] = {'linear': float, 'sqrt': sqrt}


def samples_per_step(cfg: Config, processes: int) -> int:
    """Count the samples of one optimizer step: batch size x processes x accumulated batches."""
    return _batch_size(cfg) * processes * cfg.optim_wrapper.get('accumulative_counts', 1)


def scaling_factor(cfg: Config, processes: int) -> float:
    """Compute the factor by which the configured learning rates are multiplied.

    With MMEngine's ``auto_scale_lr`` the factor is the number of samples of a step divided by ``base_batch_size`` (the
    linear rule, Goyal et al., arXiv 1706.02677), or its square root with ``rule='sqrt'``. Without the section, or with
    ``enable=False``, the factor is 1.

    Raises:
        InputError: if the base batch is not a positive number, or the rule is unknown.
    """
    section = cfg.get('auto_scale_lr') or {}
    if not section.get('enable', False):
        return 1.0
    return SCALING_RULES[_rule(section)](samples_per_step(cfg, processes) / _base_batch(section))


def describe_learning_rate(cfg: Config, processes: int) -> str:
    """Describe the learning rate before any schedule, and how it was computed, in one line."""
    section, factor = cfg.get('auto_scale_lr') or {}, scaling_factor(cfg, processes)
    configured = cfg.optim_wrapper.optimizer.lr
    reason = 'auto_scale_lr is off'
    if section.get('enable', False):
        reason = f'{_rule(section)} rule, base batch of {_base_batch(section)} samples'
    return (
        f'{configured * factor:.3g} = configured {configured:.3g} x {factor:.4g} ({reason}); '
        f'{samples_per_step(cfg, processes)} samples a step = batch of {_batch_size(cfg)} x '
        f'{processes} processes x {cfg.optim_wrapper.get("accumulative_counts", 1)} accumulated'
    )


def scale_under_mmengine(cfg: Config, processes: int) -> None:
    """Change the config's base batch so that MMEngine's own scaling arrives at :func:`scaling_factor`.

    The Runner knows only the linear rule and ignores accumulated batches; another base batch makes up for both.

    Raises:
        InputError: as :func:`scaling_factor`.
    """
    factor = scaling_factor(cfg, processes)
    if (cfg.get('auto_scale_lr') or {}).get('enable', False):
        cfg.auto_scale_lr.base_batch_size = _batch_size(cfg) * processes / factor


def _batch_size(cfg: Config) -> int:
    return cfg.train_dataloader.get('batch_size', 1)


def _rule(section: dict) -> str:
    rule = section.get('rule', 'linear')
    if rule not in SCALING_RULES:
        raise InputError(f"auto_scale_lr.rule is 'linear' or 'sqrt', got {rule!r}")
    return rule


def _base_batch(section: dict) -> float:
    base = section.get('base_batch_size')
    if isinstance(base, bool) or not isinstance(base, int | float) or base <= 0:
        raise InputError(f'auto_scale_lr.base_batch_size is a positive number of samples, got {base!r}')
    return base
