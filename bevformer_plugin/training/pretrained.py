"""Fetching the files that parts of a model start from, before anything long begins."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from bevformer_plugin.errors import InputError


def fetch_pretrained(cfg: Config) -> None:
    """Read every file that an ``init_cfg`` of the model names, and download those that are not on this machine yet.

    Raises:
        InputError: if a file cannot be fetched or read; the message names the setting, the file and the remedy.
    """
    for key, checkpoint in _pretrained(cfg.model, 'model'):
        if not isinstance(checkpoint, str):
            raise InputError(f'{key}.checkpoint is a file or an address, got {checkpoint!r}')
        try:
            CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
        except Exception as error:  # each of MMEngine's schemes raises its own kinds
            url = urlparse(checkpoint)
            cached = Path(torch.hub.get_dir(), 'checkpoints', Path(url.path).name)
            place = f', and put at {cached}' if url.scheme in ('http', 'https') else ''
            raise InputError(
                f'{key}.checkpoint={checkpoint} cannot be had here: {error}. Without a connection the file must be '
                f'fetched elsewhere{place}; or name a file of this machine: --cfg-options {key}.checkpoint=FILE, or '
                f'{key}=None load_from=FILE for a whole detector or other backbone'
            ) from error


def _pretrained(cfg: object, key: str) -> Iterator[tuple[str, object]]:
    """Yield the key and the file of every ``init_cfg`` of type ``Pretrained`` within a config."""
    if isinstance(cfg, list | tuple):
        for index, value in enumerate(cfg):
            yield from _pretrained(value, f'{key}.{index}')
    elif isinstance(cfg, dict):
        if cfg.get('type') == 'Pretrained' and 'checkpoint' in cfg:
            yield key, cfg['checkpoint']
        for name, value in cfg.items():
            yield from _pretrained(value, f'{key}.{name}')
