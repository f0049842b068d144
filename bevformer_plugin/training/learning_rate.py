"""The learning rate by batch: configs declare the batch their learning rate is for."""

from mmengine.config import Config


def samples_per_step(cfg: Config, processes: int) -> int:
    """Samples of one optimizer step: those of a batch x processes x accumulated batches."""
    return cfg.train_dataloader.batch_size * processes * cfg.optim_wrapper.get('accumulative_counts', 1)


def scaling_factor(cfg: Config, processes: int) -> float:
    """What the configured learning rates are multiplied by.

    The linear rule (Goyal et al., arXiv 1706.02677) with MMEngine's ``auto_scale_lr``: the samples of a step over
    ``base_batch_size``. Without the section, or with ``enable=False``, 1.

    Raises:
        ValueError: if the base batch is not a positive number.
    """
    rule = cfg.get('auto_scale_lr') or {}
    return samples_per_step(cfg, processes) / _base_batch(rule) if rule.get('enable', False) else 1.0


def describe_learning_rate(cfg: Config, processes: int) -> str:
    """The learning rate before any schedule, and where it comes from, in a line."""
    rule, factor = cfg.get('auto_scale_lr') or {}, scaling_factor(cfg, processes)
    configured = cfg.optim_wrapper.optimizer.lr
    why = (
        f'linear rule, base batch of {rule["base_batch_size"]} samples'
        if rule.get('enable', False)
        else 'auto_scale_lr is off'
    )
    return (
        f'{configured * factor:.3g} = configured {configured:.3g} x {factor:.4g} ({why}); '
        f'{samples_per_step(cfg, processes)} samples a step = batch of {cfg.train_dataloader.batch_size} x '
        f'{processes} processes x {cfg.optim_wrapper.get("accumulative_counts", 1)} accumulated'
    )


def count_accumulated(cfg: Config) -> None:
    """Let MMEngine's own scaling, which sees batch and processes, count accumulated batches as well."""
    rule = cfg.get('auto_scale_lr') or {}
    if rule.get('enable', False):
        rule.base_batch_size = _base_batch(rule) / cfg.optim_wrapper.get('accumulative_counts', 1)


def _base_batch(rule: dict) -> float:
    base = rule.get('base_batch_size')
    if not isinstance(base, int | float) or base <= 0:
        raise ValueError(f'auto_scale_lr.base_batch_size is a positive number of samples, got {base!r}')
    return base
