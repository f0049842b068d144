"""What made a submission, in a small file beside it: the command, the config, and which weights."""

import hashlib
import json
import platform
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import bevformer_plugin
from bevformer_plugin.atomic_write import atomic_write
from bevformer_plugin.errors import InputError

BLOCK = 1 << 20  # bytes that are read at a time


@dataclass(frozen=True)
class RunRecord:
    """How a submission was made.

    Attributes:
        command: the command line.
        config: the config, as it was named.
        checkpoint: file with the weights, as it was named.
        checkpoint_sha256: of that file.
        results_sha256: of the submission, which tells whether the record is about the file that lies beside it.
        versions: of the plugin, PyTorch and Python.
    """

    command: str
    config: str
    checkpoint: str
    checkpoint_sha256: str
    results_sha256: str
    versions: dict[str, str]


def record_path(results: str | Path) -> Path:
    """Return where the record of a submission lies: ``results_nusc.json`` has ``results_nusc.record.json``."""
    return Path(results).with_suffix('.record.json')


def write_run_record(results: str | Path, config: str, checkpoint: str, command: Sequence[str]) -> Path:
    """Write the record of a submission that was just made, and return its path.

    Args:
        results: the submission.
        config: the config's name or file.
        checkpoint: file with the weights.
        command: the command line, word by word.

    Raises:
        OSError: a file cannot be read or written.
    """
    record = RunRecord(
        command=shlex.join(command),
        config=str(config),
        checkpoint=str(checkpoint),
        checkpoint_sha256=file_sha256(checkpoint),
        results_sha256=file_sha256(results),
        versions={
            'bevformer_plugin': bevformer_plugin.__version__,
            'torch': torch.__version__,
            'python': platform.python_version(),
        },
    )
    path = record_path(results)
    with atomic_write(path) as file:
        file.write(json.dumps(asdict(record), indent=2).encode())
    return path


def read_run_record(results: str | Path) -> RunRecord | None:
    """Read the record beside a submission.

    Returns:
        The record; None if there is none, or if it is about other content than the submission has now.

    Raises:
        InputError: the file is no record.
    """
    path = record_path(results)
    if not path.is_file():
        return None
    try:
        record = RunRecord(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f'{path} is no record of tools/test.py: delete it, or move it elsewhere') from error
    return record if record.results_sha256 == file_sha256(results) else None


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
