"""What a run's checkpoints record of its settings, and what of it may change when the run goes on."""

from dataclasses import dataclass
from math import ceil
from pathlib import Path

from mmengine.config import Config

from bevformer_plugin.errors import InputError

SETTINGS = 'run_settings'  # their name in a checkpoint's meta
Value = bool | int | float | str
SECTIONS = ('model', 'optim_wrapper', 'auto_scale_lr', 'custom_hooks', 'train_dataloader', 'load_from')
# Beginnings and ends of names that do not decide on steps: how samples are loaded and kept, where files lie.
WITHOUT_EFFECT = (
    'optim_wrapper.type',  # is in the precision
    'optim_wrapper.dtype',
    'model.activation_checkpointing',
    'train_dataloader.num_workers',
    'train_dataloader.persistent_workers',
    'train_dataloader.pin_memory',
    'train_dataloader.prefetch_factor',
    'train_dataloader.dataset.data_root',
    'train_dataloader.dataset.backend_args',
    'train_dataloader.dataset.lazy_init',
    'train_dataloader.dataset.serialize_data',
)
# A run with others of these is another run.
IDENTITY = (
    'model.',
    'custom_hooks',
    'optim_wrapper.optimizer.type',
    'train_dataloader.dataset.metainfo',
    'load_from',
    'seed',
)
# In mid-epoch the place in the data is counted in these.
PLACE = ('train_dataloader.batch_size', 'train_dataloader.sampler', 'training_samples', 'processes')
AVERAGE = 'custom_hooks'
PARAMWISE = 'optim_wrapper.paramwise_cfg'
ACCUMULATED = 'optim_wrapper.accumulative_counts'
SHOWN = 6


@dataclass(frozen=True)
class Place:
    """Where a checkpoint was written.

    Attributes:
        epochs: that were trained whole.
        batches: of the next one that were trained on.
    """

    epochs: int
    batches: int

    def refuse_shorter(self, max_epochs: int, path: str) -> None:
        """Refuse a run that would have to end before its checkpoint.

        Raises:
            InputError: naming both numbers.
        """
        reached = self.epochs + bool(self.batches)
        if reached > max_epochs:
            raise InputError(
                f'{path} has reached epoch {reached}, and train_cfg.max_epochs={max_epochs} would have ended before: '
                'give more epochs, or an earlier checkpoint'
            )


def describe_going_on(path: str, place: Place, max_epochs: int, step: int, changes: list[str]) -> str:
    """Lines for the log of a resumed run.

    Args:
        path: of the checkpoint.
        place: where it was written.
        max_epochs: of the run.
        step: optimizer steps that were taken.
        changes: of settings, see :func:`check_settings`.
    """
    epoch = place.epochs + bool(place.batches)
    lines = [f'resuming from {path} (epoch {epoch}, after step {step})']
    lines += [f'from here on {change}' for change in changes]
    if place.epochs == max_epochs:
        lines.append(f'all {max_epochs} epochs are done, nothing is left to train: train_cfg.max_epochs gives more')
    return '\n'.join(lines)


def run_settings(cfg: Config, processes: int, precision: str, seed: int, training_samples: int) -> dict[str, Value]:
    """All that decides on the steps of a run, by dotted name; written to the ``meta`` of its checkpoints.

    Schedules without an ``end`` are recorded with the one that ``max_epochs`` gives them, so that more epochs change
    them, and nothing else does.

    Args:
        cfg: the config, as read.
        processes: of the run.
        precision: Lightning's name of it.
        seed: of the run.
        training_samples: in the training set.
    """
    settings: dict[str, Value] = {}
    for section in SECTIONS:
        _flatten(cfg.get(section), section, settings)
    schedulers = cfg.get('param_scheduler') or []
    for number, scheduler in enumerate([schedulers] if isinstance(schedulers, dict) else schedulers):
        epochs = cfg.train_cfg.max_epochs
        end = epochs if scheduler.get('by_epoch', True) else f'iterations of {epochs} epochs'
        _flatten({'end': end, **scheduler}, f'param_scheduler.{number}', settings)
    ann_file = 'train_dataloader.dataset.ann_file'
    if isinstance(settings.get(ann_file), str):
        settings[ann_file] = Path(settings[ann_file]).name  # data may have moved
    settings.setdefault(ACCUMULATED, 1)
    settings.update(processes=processes, precision=precision, seed=seed, training_samples=training_samples)
    return {name: value for name, value in settings.items() if not name.startswith(WITHOUT_EFFECT)}


def _flatten(value: object, name: str, found: dict[str, Value]) -> None:
    """Add the leaves of nested dicts and sequences; None and what is empty count as absent."""
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(item, f'{name}.{key}', found)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _flatten(item, f'{name}.{index}', found)
    elif value is not None:
        found[name] = value if isinstance(value, bool | int | float | str) else repr(value)


def check_settings(
    recorded: dict[str, Value] | None, now: dict[str, Value], place: Place, path: str, restart_schedule: bool
) -> list[str]:
    """Let a run go on as the one that wrote the checkpoint, or as the user has asked for in so many words.

    Args:
        recorded: settings in the checkpoint; None in those of earlier versions.
        now: settings of the run that goes on.
        place: where the checkpoint was written.
        path: of the checkpoint.
        restart_schedule: whether what may change is taken from ``now``.

    Returns:
        The differences that the run takes over.

    Raises:
        InputError: naming what differs with both values, and the remedy.
    """
    if recorded is None:
        if restart_schedule:
            return []
        raise InputError(
            f'{path} does not record the settings of its run, as it was written by an earlier version: whether the '
            'config still is the same cannot be checked. --restart-schedule keeps weights and optimizer state and '
            'takes all else from the config'
        )
    names = [name for name in sorted({**recorded, **now}) if recorded.get(name) != now.get(name)]
    if 'load_from' not in now:
        names = [name for name in names if name != 'load_from']  # it was for the beginning
    _refuse_another_run(names, recorded, now, path)
    if place.batches and any(name.startswith(PLACE) or name == ACCUMULATED for name in names):
        _refuse_in_mid_epoch(names, recorded, now, path)
    if names and not restart_schedule:
        raise InputError(
            f'{path} was written with other settings: {_differences(names, recorded, now)}. Go on with those of the '
            'checkpoint, or give --restart-schedule: it keeps weights and optimizer state and takes these from the '
            'config as it is now'
        )
    return [_difference(name, recorded, now) for name in names]


def _refuse_another_run(names: list[str], recorded: dict[str, Value], now: dict[str, Value], path: str) -> None:
    """Refuse what weights and optimizer state do not fit, or would not mean the same with."""
    refuse_other_average(_has(recorded, AVERAGE), now, path)
    regrouped = _has(recorded, PARAMWISE) != _has(now, PARAMWISE)  # with it, each parameter is a group of its own
    identity = [name for name in names if name.startswith(IDENTITY) or (regrouped and name.startswith(PARAMWISE))]
    if identity:
        raise InputError(
            f'{path} is of another run: {_differences(identity, recorded, now)}. Go on with the settings of the '
            f'checkpoint, or start a new run from its weights in another work dir with --cfg-options load_from={path}'
        )


def refuse_other_average(averaged: bool, now: dict[str, Value], path: str) -> None:
    """Refuse to go on with an average of the weights where there was none, or without one.

    Args:
        averaged: whether the checkpoint has one.
        now: settings of the run that goes on.
        path: of the checkpoint.

    Raises:
        InputError: if only one of them has.
    """
    theirs, ours = ('with' if has else 'without' for has in (averaged, _has(now, AVERAGE)))
    if theirs != ours:
        raise InputError(
            f'{path} was written {theirs} EMAHook in custom_hooks, the config is {ours} it: '
            'resume with the same custom_hooks'
        )


def _has(settings: dict[str, Value], beginning: str) -> bool:
    return any(name.startswith(beginning) for name in settings)


def _refuse_in_mid_epoch(names: list[str], recorded: dict[str, Value], now: dict[str, Value], path: str) -> None:
    theirs, ours = (
        settings.get('train_dataloader.batch_size', 1) * settings['processes'] for settings in (recorded, now)
    )
    what = f'of {theirs} samples a step, not {ours}' if theirs != ours else _differences(names, recorded, now)
    raise InputError(
        f'{path} is of mid-epoch and was written with others: {what}. Go on with as many processes and samples of the '
        "same data, or from an epoch's end"
    )


def _differences(names: list[str], recorded: dict[str, Value], now: dict[str, Value]) -> str:
    shown = ', '.join(_difference(name, recorded, now) for name in names[:SHOWN])
    return shown + (f' and {len(names) - SHOWN} more' if len(names) > SHOWN else '')


def _difference(name: str, recorded: dict[str, Value], now: dict[str, Value]) -> str:
    return f'{name}={recorded.get(name)} (now {now.get(name)})'


def chosen_seed(asked: int | None, content: dict) -> int:
    """The seed of a run: the one asked for, or that of the checkpoint it goes on with, or 0.

    Args:
        asked: on the command line.
        content: of the checkpoint; empty for a new run.
    """
    recorded = (content.get('meta') or {}).get(SETTINGS) or {}
    return recorded.get('seed', 0) if asked is None else asked


def batches_per_epoch(settings: dict[str, Value]) -> int:
    """Batches of one process in an epoch; samplers round up."""
    return ceil(
        ceil(settings['training_samples'] / settings['processes']) / settings.get('train_dataloader.batch_size', 1)
    )
