"""The files that parts of a model start from: fetching them, and whether they fit, before anything long begins."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from torch import nn

from bevformer_plugin.errors import InputError
from bevformer_plugin.weights import weights_of


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


def check_pretrained(detector: nn.Module) -> None:
    """Refuse a file of an ``init_cfg`` of which nothing fits, or that leaves frozen parameters random.

    MMEngine loads whatever fits by name and shape, be it nothing, and says so among the lines of its log only.

    Args:
        detector: the detector, before its weights are initialised.

    Raises:
        InputError: naming the part of the detector, the file and what it holds.
    """
    for name, module in detector.named_modules():
        init_cfg = getattr(module, 'init_cfg', None)
        for entry in init_cfg if isinstance(init_cfg, list) else [init_cfg]:
            if entry and entry.get('type') == 'Pretrained':
                _compare(module, name or 'model', entry['checkpoint'], entry.get('prefix'))


def _compare(module: nn.Module, name: str, checkpoint: str, prefix: str | None) -> None:
    """Compare a part of a detector with the file that it starts from; see :func:`check_pretrained`."""
    state = weights_of(CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu'), checkpoint)
    beginning = '' if prefix is None else f'{prefix.removesuffix(".")}.'
    state = {key.removeprefix(beginning): value for key, value in state.items() if key.startswith(beginning)}
    own = module.state_dict()
    used = {key for key, value in own.items() if key in state and state[key].shape == value.shape}
    if not used:
        raise InputError(
            f'nothing of {checkpoint}, the start of {name} by its init_cfg, fits it: the file has '
            f'{", ".join(list(state)[:3]) or f"nothing that begins with {beginning}"}, it needs '
            f"{', '.join(list(own)[:3])}; for a part of a larger model give init_cfg a prefix, as prefix='backbone'"
        )
    random = [key for key, value in module.named_parameters() if not value.requires_grad and key not in used]
    if random:
        raise InputError(
            f'{checkpoint}, the start of {name} by its init_cfg, lacks {len(random)} parameters that are frozen '
            f'(first: {", ".join(random[:3])}): they would stay random. Start from a file of the same backbone, or '
            'let them learn'
        )


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
