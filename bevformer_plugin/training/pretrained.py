"""Files that the parts of a model start from: had before anything long begins, or refused."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from bevformer_plugin.errors import InputError


def fetch_pretrained(cfg: Config) -> None:
    """Read every file that an ``init_cfg`` of the model names, downloading those of the web that are not there yet.

    Raises:
        InputError: if one cannot be had or read, with the setting, where it is looked for, and the remedy.
    """
    for key, checkpoint in _pretrained(cfg.model, 'model'):
        try:
            CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
        except Exception as error:  # each scheme of MMEngine's has its own kinds
            url = urlparse(checkpoint)
            cached = Path(torch.hub.get_dir(), 'checkpoints', Path(url.path).name)
            place = f', and put at {cached}' if url.scheme in ('http', 'https') else ''
            raise InputError(
                f'{key}.checkpoint={checkpoint} cannot be had here: {error}. Without a connection the file must be '
                f'fetched elsewhere{place}; or name a file of this machine: --cfg-options {key}.checkpoint=FILE, or '
                f'{key}=None load_from=FILE for a whole detector or other backbone'
            ) from error


def _pretrained(cfg: object, key: str) -> Iterator[tuple[str, str]]:
    """Key of every ``init_cfg`` of type Pretrained, and its file."""
    if isinstance(cfg, list | tuple):
        for index, value in enumerate(cfg):
            yield from _pretrained(value, f'{key}.{index}')
    elif isinstance(cfg, dict):
        if cfg.get('type') == 'Pretrained' and 'checkpoint' in cfg:
            yield key, cfg['checkpoint']
        for name, value in cfg.items():
            yield from _pretrained(value, f'{key}.{name}')
