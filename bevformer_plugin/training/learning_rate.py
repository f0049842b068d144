"""The learning rate by batch: configs declare the batch their learning rate is for."""

from collections.abc import Callable
from math import sqrt

from mmengine.config import Config

from bevformer_plugin.errors import InputError

# How the learning rate grows with the samples of a step over those of the base batch.
RULES: dict[str, Callable[[float], float]] = {'linear': float, 'sqrt': sqrt}


def samples_per_step(cfg: Config, processes: int) -> int:
    """Samples of one optimizer step: those of a batch x processes x accumulated batches."""
    return cfg.train_dataloader.batch_size * processes * cfg.optim_wrapper.get('accumulative_counts', 1)


def scaling_factor(cfg: Config, processes: int) -> float:
    """What the configured learning rates are multiplied by.

    With MMEngine's ``auto_scale_lr`` it is the samples of a step over ``base_batch_size`` (the linear rule, Goyal et
    al., arXiv 1706.02677), or the root of that with ``rule='sqrt'``. Without the section, or with ``enable=False``, 1.

    Raises:
        InputError: if the base batch is not a positive number, or there is no such rule.
    """
    section = cfg.get('auto_scale_lr') or {}
    if not section.get('enable', False):
        return 1.0
    return RULES[_rule(section)](samples_per_step(cfg, processes) / _base_batch(section))


def describe_learning_rate(cfg: Config, processes: int) -> str:
    """The learning rate before any schedule, and where it comes from, in a line."""
    section, factor = cfg.get('auto_scale_lr') or {}, scaling_factor(cfg, processes)
    configured = cfg.optim_wrapper.optimizer.lr
    why = 'auto_scale_lr is off'
    if section.get('enable', False):
        why = f'{_rule(section)} rule, base batch of {_base_batch(section)} samples'
    return (
        f'{configured * factor:.3g} = configured {configured:.3g} x {factor:.4g} ({why}); '
        f'{samples_per_step(cfg, processes)} samples a step = batch of {cfg.train_dataloader.batch_size} x '
        f'{processes} processes x {cfg.optim_wrapper.get("accumulative_counts", 1)} accumulated'
    )


def scale_under_mmengine(cfg: Config, processes: int) -> None:
    """Let MMEngine's own scaling come to :func:`scaling_factor`.

    The Runner knows the linear rule only, and no accumulated batches: the base batch is changed to make up for both.

    Raises:
        InputError: as :func:`scaling_factor`.
    """
    factor = scaling_factor(cfg, processes)
    section = cfg.get('auto_scale_lr') or {}
    if section.get('enable', False):
        section.base_batch_size = cfg.train_dataloader.batch_size * processes / factor


def _rule(section: dict) -> str:
    rule = section.get('rule', 'linear')
    if rule not in RULES:
        raise InputError(f"auto_scale_lr.rule is 'linear' or 'sqrt', got {rule!r}")
    return rule


def _base_batch(section: dict) -> float:
    base = section.get('base_batch_size')
    if isinstance(base, bool) or not isinstance(base, int | float) or base <= 0:
        raise InputError(f'auto_scale_lr.base_batch_size is a positive number of samples, got {base!r}')
    return base
