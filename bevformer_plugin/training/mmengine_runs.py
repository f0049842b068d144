"""Whole training runs under MMEngine's Runner, with the same steps and the same rules to resume as under Lightning."""

import os
from copy import deepcopy
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.runner import Runner
from torch import nn, optim

from bevformer_plugin.configuration import building
from bevformer_plugin.errors import InputError
from bevformer_plugin.seeding import derived_seed, seed_generators
from bevformer_plugin.weights import check_resumption, initialize

from .checkpoints import checkpoint_to_resume, newest_checkpoint, refuse_mismatch
from .consistency import check_first_items, check_run, log_remarks, trained_names
from .data_module import DetectorDataModule, loses_seeds
from .hardware import check_precision_under_mmengine, configured_precision
from .initial_weights import check_initial_weights
from .interrupts import exit_on_signals
from .learning_rate import describe_learning_rate, scale_under_mmengine
from .parameter_groups import check_parameter_groups
from .pretrained import check_pretrained
from .run_settings import (
    SETTINGS,
    Place,
    Value,
    batches_per_epoch,
    check_settings,
    chosen_seed,
    describe_going_on,
    run_settings,
)
from .schedule import FreshSchedule, advance, beyond_training, ended
from .start import RunStart
from .work_dir import check_work_dir, drop_replaced, occupied

CHECKPOINT_PATTERNS = ('epoch_*.pth', 'iter_*.pth')


class SeedSteps(Hook):
    """Seeds every step as :class:`DetectorModule` does, so that both engines take the same steps.

    Args:
        seed: seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Seed the step that begins."""
        seed_generators(derived_seed(self.seed, runner.epoch, batch_idx, runner.rank))


class Initialize(Hook):
    """Starts from a file by the same rules as under Lightning; the Runner itself would load whatever fits.

    Args:
        path: the file.
        names: names of classes and cameras, see :func:`.consistency.trained_names`.
    """

    def __init__(self, path: str, names: dict[str, list[str]]) -> None:
        self.path = path
        self.names = names

    def before_train(self, runner: Runner) -> None:
        """Load the file before the first step, since the Runner initialises the weights only after ``before_run``."""
        initialize(bare_model(runner), self.path, **self.names)


class RecordSettings(Hook):
    """Writes the settings of the run into its checkpoints, and deletes a replaced run after the first checkpoint.

    Args:
        settings: settings of the run, see :func:`.run_settings.run_settings`.
        work_dir: folder of the run.
    """

    priority = 'LOWEST'  # so that it runs after CheckpointHook

    def __init__(self, settings: dict[str, Value], work_dir: Path) -> None:
        self.settings = settings
        self.work_dir = work_dir

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the settings of the run to the checkpoint."""
        checkpoint['meta'][SETTINGS] = self.settings

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Delete the replaced run once there is a checkpoint."""
        written = self.work_dir / 'last_checkpoint'  # the Runner writes this file once a checkpoint is whole
        if runner.rank == 0 and written.is_file():
            drop_replaced(self.work_dir)

    def after_train_epoch(self, runner: Runner) -> None:
        """Delete the replaced run once there is a checkpoint."""
        self.after_train_iter(runner, 0)


class GoOn(Hook):
    """Logs the learning rate with which a resumed run goes on, and restarts schedules if asked to.

    Args:
        restart_schedule: whether the config's optimizer settings and schedules replace those of the checkpoint.
    """

    def __init__(self, restart_schedule: bool) -> None:
        self.restart_schedule = restart_schedule

    def before_run(self, runner: Runner) -> None:
        """Copy the optimizer settings and schedules of the config before the checkpoint is loaded over them."""
        self.fresh = FreshSchedule(*_optimizer_and_schedules(runner))

    def before_train(self, runner: Runner) -> None:
        """Restart the schedules if asked to, and log the learning rate."""
        optimizer, schedulers = _optimizer_and_schedules(runner)
        if self.restart_schedule:
            batches_per_epoch = len(runner.train_dataloader)
            batches = runner.epoch * batches_per_epoch
            self.fresh.restore(optimizer, schedulers)
            advance(schedulers, batches, batches, batches_per_epoch)
        rate = max(group['lr'] for group in optimizer.param_groups)
        print_log(f'learning rate {rate:.3g} in the first step from here{ended(schedulers)}', logger='current')


def bare_model(runner: Runner) -> nn.Module:
    """Return the Runner's model without the wrapper that joins several processes."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    assert isinstance(model, nn.Module)
    return model


def _optimizer_and_schedules(runner: Runner) -> tuple[optim.Optimizer, list[_ParamScheduler]]:
    """Return the optimizer and the schedules that the Runner has built by the time it calls hooks."""
    schedulers = runner.param_schedulers or []
    assert isinstance(runner.optim_wrapper, OptimWrapper) and isinstance(schedulers, list)
    return runner.optim_wrapper.optimizer, schedulers


def _try_to_build(runner: Runner, settings: dict[str, Value]) -> list[str]:
    """Build what the Runner would build only in ``train()``, where an error would end with a traceback.

    The loops are kept. Optimizer and schedules are built as a trial: a schedule changes the optimizer at once, and the
    Runner has to scale the learning rate before.

    Args:
        runner: the Runner.
        settings: settings of the run, see :func:`.run_settings.run_settings`.

    Returns:
        Remarks for the log, see :func:`.schedule.beyond_training`.
    """
    batches, remarks = batches_per_epoch(settings), []
    assert runner.train_loop is not None and runner.val_loop is not None
    configured = runner.optim_wrapper
    assert configured is not None
    runner.optim_wrapper = trial = runner.build_optim_wrapper(deepcopy(configured))
    assert isinstance(configured, dict) and isinstance(trial, OptimWrapper)
    check_parameter_groups(configured, bare_model(runner), trial.optimizer)
    if runner.param_schedulers:
        schedulers = runner.build_param_scheduler(deepcopy(runner.param_schedulers))
        assert isinstance(schedulers, list)
        advance(schedulers, batches=1, counted=1, batches_per_epoch=1)
        remarks = beyond_training(schedulers, runner.max_epochs, batches)
    runner.optim_wrapper = configured
    return remarks


def _number_of_processes() -> int:
    """Read how many processes a launcher has started.

    Raises:
        InputError: if the launcher's environment variable is not a number of processes.
    """
    text = os.environ.get('WORLD_SIZE', '1')
    if not (text.isascii() and text.isdigit() and int(text)):
        raise InputError(f'the environment variable WORLD_SIZE is the number of processes, got {text!r}: unset it')
    return int(text)


def train_with_mmengine(cfg: Config, start: RunStart) -> None:
    """Train a config under MMEngine's Runner, or resume one of the Runner's own checkpoints.

    Raises:
        FileExistsError: if the work dir belongs to another run.
        FileNotFoundError: if there is nothing to resume, or files of the data are missing.
        InputError: if several processes were started without a ``launcher`` in the config, or config, data and
            checkpoint do not belong together.
    """
    processes = _number_of_processes()
    if processes > 1 and cfg.get('launcher', 'none') == 'none':
        raise InputError(
            f"{processes} processes were started, and the config's launcher is 'none': each would train "
            'on its own. --cfg-options launcher=pytorch joins them on GPUs, Lightning anywhere'
        )
    check_precision_under_mmengine(cfg)
    check_work_dir(start)
    checkpoint, content = checkpoint_to_resume(start.work_dir, start.resume, CHECKPOINT_PATTERNS)
    seed = chosen_seed(start.seed, content)
    datasets = DetectorDataModule(cfg, ('train', 'val')).datasets
    load_from = cfg.get('load_from') if checkpoint is None else None
    remarks = check_run(cfg, datasets, load_from)
    settings = run_settings(cfg, processes, configured_precision(cfg), seed, len(datasets['train']))
    resumption = ''
    if checkpoint is not None:
        remarks += check_resumption(cfg, datasets['train'], checkpoint, content)
        resumption = _check_resumable(content, checkpoint, settings, cfg.train_cfg.max_epochs, start.restart_schedule)
    names = trained_names(datasets['train'])
    check_first_items(datasets)
    del datasets  # the Runner builds its own
    if checkpoint is None:
        print_log(f'learning rate {describe_learning_rate(cfg, processes)}', logger='current')
    scale_under_mmengine(cfg, processes)
    cfg.work_dir = str(start.work_dir)
    cfg.randomness = dict(seed=seed)
    cfg.load_from, cfg.resume = checkpoint, checkpoint is not None
    if loses_seeds(cfg.train_dataloader):
        cfg.train_dataloader.dataset = dict(type='SeededItems', dataset=cfg.train_dataloader.dataset)
    with occupied(start, Path(cfg.filename).name):
        with building('the run'):
            runner = Runner.from_cfg(cfg)
            remarks += _try_to_build(runner, settings)
        detector = bare_model(runner)
        check_initial_weights(detector, load_from, resuming=checkpoint is not None)
        if checkpoint is None:
            check_pretrained(detector)
        log_remarks(remarks)
        runner.register_hook(SeedSteps(seed))
        runner.register_hook(RecordSettings(settings, start.work_dir))
        if checkpoint is not None:
            refuse_mismatch(content['state_dict'], detector, checkpoint)
            runner.register_hook(GoOn(start.restart_schedule))
            print_log(resumption, logger='current')
        elif load_from:
            runner.register_hook(Initialize(load_from, names))
        del content
        exit_on_signals(lambda: _what_is_left(start.work_dir))
        runner.train()


def _check_resumable(content: dict, path: str, settings: dict[str, Value], max_epochs: int, restart: bool) -> str:
    """Refuse to go on with a checkpoint of the Runner that does not belong to the config.

    Returns:
        Lines for the log that describe how the run goes on.

    Raises:
        InputError: if the checkpoint does not belong to the config, is not one of the Runner, or was written within an
            epoch, where the Runner cannot go on.
    """
    meta = content.get('meta') or {}
    if 'optimizer' not in content or 'iter' not in meta:
        raise InputError(
            f"{path} cannot be resumed, it has no state of a run of MMEngine's Runner; to start from its weights give "
            f'--cfg-options load_from={path}'
        )
    recorded = meta.get(SETTINGS)
    if recorded and meta['iter'] % batches_per_epoch(recorded):
        raise InputError(
            f"{path} is of mid-epoch (step {meta['iter']}), where MMEngine's Runner would begin the epoch again: "
            "resume from an epoch's end, or train under Lightning, which goes on anywhere"
        )
    place = Place(meta['epoch'], 0)
    place.refuse_shorter(max_epochs, path)
    changes = check_settings(recorded, settings, place, path, restart)
    return describe_going_on(path, place, max_epochs, meta['iter'], changes)


def _what_is_left(work_dir: Path) -> str:
    """Describe for the message of an interrupted run what it has left."""
    try:
        return f'--resume goes on with {newest_checkpoint(work_dir, CHECKPOINT_PATTERNS)}'
    except FileNotFoundError:
        return f'there is no checkpoint in {work_dir} yet'
