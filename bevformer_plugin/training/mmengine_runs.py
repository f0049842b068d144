"""Whole training runs under MMEngine's Runner, with the steps and the rules for going on of those under Lightning."""

import os
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from bevformer_plugin.configuration import building
from bevformer_plugin.errors import InputError
from bevformer_plugin.seeding import derived_seed, seed_generators
from bevformer_plugin.weights import check_resumption, initialize

from .checkpoints import checkpoint_to_resume, newest_checkpoint, refuse_mismatch
from .consistency import check_run, log_remarks, trained_names
from .data_module import DetectorDataModule
from .hardware import check_precision_under_mmengine, configured_precision
from .initial_weights import check_initial_weights
from .interrupts import exit_on_signals
from .learning_rate import describe_learning_rate, scale_under_mmengine
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
from .schedule import FreshSchedule, advance, ended
from .start import RunStart
from .work_dir import check_work_dir, drop_replaced, occupied

PATTERNS = ('epoch_*.pth', 'iter_*.pth')


class SeedSteps(Hook):
    """Seeds every step as :class:`DetectorModule` does, so that both engines take the same steps."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Seed one step."""
        seed_generators(derived_seed(self.seed, runner.epoch, batch_idx, runner.rank))


class Initialize(Hook):
    """Starts from a file as training under Lightning does; the Runner itself would load what happens to fit."""

    def __init__(self, path: str, names: dict[str, list[str]]) -> None:
        self.path = path
        self.names = names

    def before_train(self, runner: Runner) -> None:
        """Load before the first step; the Runner initialises weights only after ``before_run``."""
        initialize(runner.model.module if is_model_wrapper(runner.model) else runner.model, self.path, **self.names)


class RecordSettings(Hook):
    """Writes the settings of the run into its checkpoints, and lets go of a run that it replaces.

    Args:
        settings: see :func:`.run_settings.run_settings`.
        work_dir: folder of the run.
    """

    priority = 'LOWEST'  # after CheckpointHook

    def __init__(self, settings: dict[str, Value], work_dir: Path) -> None:
        self.settings = settings
        self.work_dir = work_dir

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add them."""
        checkpoint['meta'][SETTINGS] = self.settings

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Look for the first checkpoint."""
        if runner.rank == 0 and (self.work_dir / 'last_checkpoint').is_file():  # written after the checkpoint itself
            drop_replaced(self.work_dir)

    def after_train_epoch(self, runner: Runner) -> None:
        """Look for the first checkpoint."""
        self.after_train_iter(runner, 0)


class GoOn(Hook):
    """Announces the learning rate that a resumed run goes on with, and takes schedules from the config if asked to.

    Args:
        restart_schedule: whether the checkpoint's optimizer settings and schedules are replaced by the config's.
    """

    def __init__(self, restart_schedule: bool) -> None:
        self.restart_schedule = restart_schedule

    def before_run(self, runner: Runner) -> None:
        """Keep what the checkpoint is loaded over."""
        self.fresh = FreshSchedule(runner.optim_wrapper.optimizer, runner.param_schedulers or [])

    def before_train(self, runner: Runner) -> None:
        """Restart, announce."""
        optimizer, schedulers = runner.optim_wrapper.optimizer, runner.param_schedulers or []
        if self.restart_schedule:
            batches_per_epoch = len(runner.train_dataloader)
            batches = runner.epoch * batches_per_epoch
            self.fresh.restore(optimizer, schedulers)
            advance(schedulers, batches, batches, batches_per_epoch)
        rate = max(group['lr'] for group in optimizer.param_groups)
        print_log(f'learning rate {rate:.3g} in the first step from here{ended(schedulers)}', logger='current')


def train_with_mmengine(cfg: Config, start: RunStart) -> None:
    """Train a config under MMEngine's Runner; a checkpoint to resume is one of its own.

    Raises:
        FileExistsError: if the work dir is another run's.
        FileNotFoundError: if there is nothing to resume, or files of the data are missing.
        InputError: if several processes were started that would not know of each other, or config, data and
            checkpoint do not fit.
    """
    processes = int(os.environ.get('WORLD_SIZE', 1))
    if processes > 1 and cfg.get('launcher', 'none') == 'none':
        raise InputError(
            f"{processes} processes were started, and the config's launcher is 'none': each would train "
            'on its own. --cfg-options launcher=pytorch joins them on GPUs, Lightning anywhere'
        )
    check_precision_under_mmengine(cfg)
    check_work_dir(start)
    checkpoint, content = checkpoint_to_resume(start.work_dir, start.resume, PATTERNS)
    seed = chosen_seed(start.seed, content)
    datasets = DetectorDataModule(cfg, ('train', 'val')).datasets
    load_from = cfg.get('load_from') if checkpoint is None else None
    remarks = check_run(cfg, datasets, load_from)
    check_precision_under_mmengine(cfg)
    settings = run_settings(cfg, processes, configured_precision(cfg), seed, len(datasets['train']))
    goes_on = None
    if checkpoint is not None:
        remarks += check_resumption(cfg, datasets['train'], checkpoint, content)
        goes_on = _check_resumable(content, checkpoint, settings, cfg.train_cfg.max_epochs, start.restart_schedule)
    names = trained_names(datasets['train'])
    del datasets  # the Runner builds its own
    if checkpoint is None:
        print_log(f'learning rate {describe_learning_rate(cfg, processes)}', logger='current')
    scale_under_mmengine(cfg, processes)
    cfg.work_dir = str(start.work_dir)
    cfg.randomness = dict(seed=seed)
    cfg.load_from, cfg.resume = checkpoint, checkpoint is not None
    with occupied(start, Path(cfg.filename).name):
        with building('the run'):
            runner = Runner.from_cfg(cfg)
        detector = runner.model.module if is_model_wrapper(runner.model) else runner.model
        check_initial_weights(detector, load_from, resuming=checkpoint is not None)
        log_remarks(remarks)
        runner.register_hook(SeedSteps(seed))
        runner.register_hook(RecordSettings(settings, start.work_dir))
        if checkpoint is not None:
            refuse_mismatch(content['state_dict'], detector, checkpoint)
            runner.register_hook(GoOn(start.restart_schedule))
            print_log(goes_on, logger='current')
        elif load_from:
            runner.register_hook(Initialize(load_from, names))
        del content
        exit_on_signals(lambda: _what_is_left(start.work_dir))
        runner.train()


def _check_resumable(content: dict, path: str, settings: dict[str, Value], max_epochs: int, restart: bool) -> str:
    """Refuse to go on with a checkpoint of the Runner that does not belong to the config; say what else goes on.

    Raises:
        InputError: if it does not, is of another engine, or of mid-epoch, where the Runner cannot go on.
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
    try:
        return f'--resume goes on with {newest_checkpoint(work_dir, PATTERNS)}'
    except FileNotFoundError:
        return f'there is no checkpoint in {work_dir} yet'
