"""Checks of the weights that a training starts from: layers that never learn must come from a file."""

from pathlib import Path

from torch import nn

from bevformer_plugin.errors import InputError


def check_initial_weights(detector: nn.Module, load_from: str | None, resuming: bool) -> None:
    """Refuse to start from a file that does not exist, or with frozen layers that nothing initialises.

    A layer is frozen if its parameters take no gradient (``frozen_stages``, ``norm_cfg.requires_grad=False``), so it
    would stay random. It is initialised by a file to start from, by a checkpoint to resume, or by an ``init_cfg`` of
    type ``Pretrained`` of the layer or of a module around it.

    Args:
        detector: the detector, as built from the config.
        load_from: the file that the training starts from, or None.
        resuming: whether the training goes on from a checkpoint, which makes both checks unnecessary.

    Raises:
        FileNotFoundError: if there is no file ``load_from``.
        InputError: if frozen layers are not initialised; the message names them.
    """
    if resuming:
        return
    if load_from:
        require_file(load_from)
        return
    frozen = _frozen_without_start(detector)
    if frozen:
        raise InputError(
            f'{len(frozen)} layers never learn and nothing initialises them ({", ".join(frozen[:3])}, ...): set '
            "load_from to the backbone's file, for the published small and base r101_dcn_fcos3d_pretrain.pth, or give "
            'the backbone a Pretrained init_cfg; to train from random weights let all layers learn, with '
            'frozen_stages=-1, norm_cfg.requires_grad=True and norm_eval=False of model.img_backbone'
        )


def require_file(load_from: str) -> None:
    """Refuse a file to start from that does not exist; a damaged or foreign one is refused where it is read.

    Raises:
        FileNotFoundError: with where the files of the published configs are from.
    """
    if not Path(load_from).exists():
        raise FileNotFoundError(
            f'load_from: {load_from} does not exist; download it (what the published configs start from is named in '
            'projects/bevformer/README.md and projects/bevformer_v2/README.md), or set load_from to where it is'
        )


def _frozen_without_start(module: nn.Module, name: str = '') -> list[str]:
    """List the frozen layers of a module that are outside of pretrained parts."""
    if _is_pretrained(module):
        return []
    found = [name] if _is_frozen(module) else []
    for child_name, child in module.named_children():
        found += _frozen_without_start(child, f'{name}.{child_name}' if name else child_name)
    return found


def _is_frozen(module: nn.Module) -> bool:
    return any(not parameter.requires_grad for parameter in module.parameters(recurse=False))


def _is_pretrained(module: nn.Module) -> bool:
    init_cfg = getattr(module, 'init_cfg', None)
    entries = init_cfg if isinstance(init_cfg, list) else [init_cfg]
    return any(entry and entry.get('type') in ('Pretrained', 'PretrainedInit') for entry in entries)
