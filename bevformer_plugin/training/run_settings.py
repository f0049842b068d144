"""The settings that a run's checkpoints record, and which of them may change when the run goes on."""

from dataclasses import dataclass
from math import ceil
from pathlib import Path

from mmengine.config import Config

from bevformer_plugin.errors import InputError

SETTINGS = 'run_settings'  # the key of the settings in a checkpoint's meta
Value = bool | int | float | str
SECTIONS = ('model', 'optim_wrapper', 'auto_scale_lr', 'custom_hooks', 'train_dataloader', 'load_from')
# Beginnings of the names of settings that do not change what a step computes, but how and from where data are loaded.
WITHOUT_EFFECT = (
    'optim_wrapper.type',  # recorded as the precision
    'optim_wrapper.dtype',  # likewise
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
# Beginnings of the names of settings that make another run if they change.
IDENTITY = (
    'model.',
    'custom_hooks',
    'optim_wrapper.optimizer.type',
    'train_dataloader.dataset.metainfo',
    'load_from',
    'seed',
)
# Beginnings of the names of settings that the place in the data depends on within an epoch.
PLACE = ('train_dataloader.batch_size', 'train_dataloader.sampler', 'training_samples', 'processes')
ANN_FILE = 'train_dataloader.dataset.ann_file'
BATCH_SIZE = 'train_dataloader.batch_size'
LIMITED = 'train_dataloader.num_batch_per_epoch'
AVERAGE = 'custom_hooks'
PARAMWISE = 'optim_wrapper.paramwise_cfg'
ACCUMULATED = 'optim_wrapper.accumulative_counts'
SHOWN_DIFFERENCES = 6  # a message names at most so many


@dataclass(frozen=True)
class Place:
    """The position in the training at which a checkpoint was written.

    Attributes:
        epochs: number of epochs that were trained completely.
        batches: number of batches of the next epoch that were trained on.
    """

    epochs: int
    batches: int

    def refuse_shorter(self, max_epochs: int, path: str) -> None:
        """Refuse to go on with a run whose last epoch lies before its checkpoint.

        Raises:
            InputError: if ``max_epochs`` is smaller than the epoch that the checkpoint has reached.
        """
        reached = self.epochs + bool(self.batches)
        if reached > max_epochs:
            raise InputError(
                f'{path} has reached epoch {reached}, and train_cfg.max_epochs={max_epochs} would have ended before: '
                'give more epochs, or an earlier checkpoint'
            )


def describe_going_on(path: str, place: Place, max_epochs: int, step: int, changes: list[str]) -> str:
    """Write the lines for the log with which a resumed run begins.

    Args:
        path: file of the checkpoint.
        place: position at which it was written.
        max_epochs: number of epochs of the run.
        step: number of optimizer steps that were taken.
        changes: changed settings, see :func:`check_settings`.
    """
    epoch = place.epochs + bool(place.batches)
    lines = [f'resuming from {path} (epoch {epoch}, after step {step})']
    lines += [f'from here on {change}' for change in changes]
    if place.epochs == max_epochs:
        lines.append(f'all {max_epochs} epochs are done, nothing is left to train: train_cfg.max_epochs gives more')
    return '\n'.join(lines)


def run_settings(cfg: Config, processes: int, precision: str, seed: int, training_samples: int) -> dict[str, Value]:
    """Collect all settings that decide what the steps of a run compute, for the ``meta`` of its checkpoints.

    A schedule without an ``end`` is recorded with the end that ``max_epochs`` gives it. So training for more epochs
    counts as a change of that schedule, and of nothing else.

    Args:
        cfg: the config, as read.
        processes: number of processes.
        precision: Lightning's name of the precision.
        seed: seed of the run.
        training_samples: number of samples in the training set.

    Returns:
        The settings by dotted name.
    """
    settings: dict[str, Value] = {}
    for section in SECTIONS:
        _flatten(cfg.get(section), section, settings)
    schedulers = cfg.get('param_scheduler') or []
    for number, scheduler in enumerate([schedulers] if isinstance(schedulers, dict) else schedulers):
        epochs = cfg.train_cfg.max_epochs
        end = epochs if scheduler.get('by_epoch', True) else f'iterations of {epochs} epochs'
        _flatten({'end': end, **scheduler}, f'param_scheduler.{number}', settings)
    ann_file = settings.get(ANN_FILE)
    if isinstance(ann_file, str):
        settings[ANN_FILE] = Path(ann_file).name  # without its folder, since data may have moved
    settings.setdefault(ACCUMULATED, 1)
    settings.update(processes=processes, precision=precision, seed=seed, training_samples=training_samples)
    return {name: value for name, value in settings.items() if not name.startswith(WITHOUT_EFFECT)}


def _flatten(value: object, name: str, found: dict[str, Value]) -> None:
    """Add the leaves of nested dicts and sequences to ``found``; None and empty containers count as absent."""
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
    """Refuse to go on with other settings than those in the checkpoint, unless the user asked for these changes.

    Args:
        recorded: settings in the checkpoint; None if an earlier version of this package has written it.
        now: settings of the run that goes on.
        place: position at which the checkpoint was written.
        path: file of the checkpoint, for messages.
        restart_schedule: whether the user asked to take the settings that may change from ``now``.

    Returns:
        The differences, which the run adopts.

    Raises:
        InputError: if settings differ that may not; the message has both values and the remedy.
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
    if 'load_from' not in now:  # the config may leave it out later, as it was only for the beginning of the run
        names = [name for name in names if name != 'load_from']
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
    """Refuse changes with which the weights and the optimizer state would not fit or would not mean the same."""
    refuse_other_average(_has(recorded, AVERAGE), now, path)
    regrouped = _has(recorded, PARAMWISE) != _has(
        now, PARAMWISE
    )  # paramwise_cfg makes each parameter a group of its own
    identity = [name for name in names if name.startswith(IDENTITY) or (regrouped and name.startswith(PARAMWISE))]
    if identity:
        raise InputError(
            f'{path} is of another run: {_differences(identity, recorded, now)}. Go on with the settings of the '
            f'checkpoint, or start a new run from its weights in another work dir with --cfg-options load_from={path}'
        )


def refuse_other_average(averaged: bool, now: dict[str, Value], path: str) -> None:
    """Refuse to begin or to give up averaging the weights when a run goes on.

    Args:
        averaged: whether the checkpoint has an average of the weights.
        now: settings of the run that goes on.
        path: file of the checkpoint, for messages.

    Raises:
        InputError: if only one of checkpoint and settings has an average.
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
    """Refuse to go on within an epoch with changes after which the place in the data would be another."""
    theirs, ours = (
        whole_number(settings, BATCH_SIZE, 1) * whole_number(settings, 'processes') for settings in (recorded, now)
    )
    what = f'of {theirs} samples a step, not {ours}' if theirs != ours else _differences(names, recorded, now)
    raise InputError(
        f'{path} is of mid-epoch and was written with others: {what}. Go on with as many processes and samples of the '
        "same data, or from an epoch's end"
    )


def _differences(names: list[str], recorded: dict[str, Value], now: dict[str, Value]) -> str:
    shown = ', '.join(_difference(name, recorded, now) for name in names[:SHOWN_DIFFERENCES])
    return shown + (f' and {len(names) - SHOWN_DIFFERENCES} more' if len(names) > SHOWN_DIFFERENCES else '')


def _difference(name: str, recorded: dict[str, Value], now: dict[str, Value]) -> str:
    return f'{name}={recorded.get(name)} (now {now.get(name)})'


def chosen_seed(asked: int | None, content: dict) -> int:
    """Choose the seed of a run: that of the command line, or else of the checkpoint, or else 0.

    Args:
        asked: the seed of the command line, or None.
        content: content of the checkpoint with which the run goes on; empty for a new run.
    """
    recorded = (content.get('meta') or {}).get(SETTINGS) or {}
    return recorded.get('seed', 0) if asked is None else asked


def batches_per_epoch(settings: dict[str, Value]) -> int:
    """Compute the batches of one process in an epoch from recorded settings; like samplers, it rounds up.

    Raises:
        InputError: if an epoch has no batch, since ``drop_last`` leaves out the only one, or is to have more than
            there are.
    """
    samples_of_process = ceil(whole_number(settings, 'training_samples') / whole_number(settings, 'processes'))
    batch_size = whole_number(settings, BATCH_SIZE, 1)
    if LIMITED in settings:
        limited = whole_number(settings, LIMITED)
        if limited * batch_size > samples_of_process:
            raise InputError(
                f'{LIMITED}={limited} takes {limited * batch_size} samples of a process, which has '
                f'{samples_of_process}: leave it out, or take fewer'
            )
        return limited
    if not settings.get('train_dataloader.drop_last', False):
        return ceil(samples_of_process / batch_size)
    if samples_of_process < batch_size:
        raise InputError(
            f'train_dataloader.drop_last=True leaves nothing to train on: a process has {samples_of_process} samples, '
            f'and a batch {batch_size}; leave drop_last out'
        )
    return samples_of_process // batch_size


def whole_number(settings: dict[str, Value], name: str, default: int | None = None) -> int:
    """Return a setting that counts something, such as the processes of a run.

    Raises:
        InputError: if it is missing or not a whole number from 1, as in a checkpoint that was tampered with.
    """
    value = settings.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f'the recorded settings of the run have {name}={value!r}, and not a whole number from 1')
    return value
