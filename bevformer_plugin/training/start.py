"""The choice how a run begins."""

from dataclasses import dataclass
from pathlib import Path

from bevformer_plugin.errors import InputError

NEWEST = 'newest'  # in the place of a checkpoint to resume: the newest of the work dir that can be read


@dataclass(frozen=True)
class RunStart:
    """The choice how a run begins: as a new run, in place of an earlier one, or from a checkpoint.

    Attributes:
        work_dir: folder of the run.
        seed: seed of everything random; None takes that of the checkpoint, or 0 for a new run.
        resume: a checkpoint to go on with, or :data:`NEWEST` of ``work_dir``; None starts anew.
        restart_schedule: whether to go on with the optimizer settings, schedule, batch and data of the config instead
            of the checkpoint's.
        overwrite: whether to replace the run in ``work_dir``.

    Raises:
        InputError: for choices that exclude each other, or a seed outside of 0 to 2**32 - 1.
    """

    work_dir: Path
    seed: int | None = None
    resume: str | None = None
    restart_schedule: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.resume is not None and self.overwrite:
            raise InputError('--resume continues a run and --overwrite replaces it: give one of them')
        if self.restart_schedule and self.resume is None:
            raise InputError('--restart-schedule belongs to --resume: a new run has the schedule of its config')
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise InputError(f'--seed is from 0 to 2**32 - 1, got {self.seed}')
