"""Mapping of tensors with one row per class or per camera, so that weights follow names when their order changes."""

import re
from collections.abc import Sequence

from torch import Tensor

from bevformer_plugin.errors import InputError

# Names of the tensors that have one row per class.
CLASS_ROWS = re.compile(
    r'heads\.\w+\.(cls_branches\.\d+\.6|queries\.heatmap|heatmap)\.(weight|bias)'
    r'|heads\.\w+\.queries\.class_embedding\.weight'
)
# Names of the tensors that have one row per camera.
CAMERA_ROWS = re.compile(r'bev_encoder\.cams_embeds')


def order_classes(
    state: dict[str, Tensor], recorded: Sequence[str], wanted: Sequence[str], path: str
) -> dict[str, Tensor]:
    """Bring the class rows of a state dict from the order ``recorded`` in the file ``path`` into the order ``wanted``.

    Raises:
        InputError: if the names of the classes differ, or the file's tensors have another number of rows than names.
    """
    check_rows(state, CLASS_ROWS, recorded, 'classes', path)
    if set(recorded) != set(wanted):
        only_file, only_dataset = (
            ', '.join(name for name in names if name not in others) or 'no other'
            for names, others in ((recorded, wanted), (wanted, recorded))
        )
        raise InputError(
            f"{path} detects {len(recorded)} classes ({', '.join(recorded)}) and the config's dataset has "
            f'{len(wanted)} ({", ".join(wanted)}): the checkpoint alone has {only_file}, the dataset alone '
            f'{only_dataset}. Give metainfo.classes all names of the checkpoint, in any order; to train for other '
            f'classes from these weights, set load_from={path}'
        )
    order = [list(recorded).index(name) for name in wanted]
    return {name: value[order] if CLASS_ROWS.fullmatch(name) else value for name, value in state.items()}


def map_rows(value: Tensor, recorded: Sequence[str], own: Tensor, wanted: Sequence[str]) -> Tensor | None:
    """Copy the rows of the file's tensor into the detector's tensor, wherever both have a row of the same name.

    Args:
        value: (len(recorded), ...) tensor of the file.
        recorded: names of its rows.
        own: (len(wanted), ...) initialised tensor of the detector.
        wanted: names of its rows.

    Returns:
        The detector's tensor with the copied rows; None if no name is shared or the rows have different shapes.
    """
    shared = [name for name in wanted if name in recorded]
    if not shared or value.shape[1:] != own.shape[1:] or len(own) != len(wanted):
        return None
    mapped = own.clone()
    rows = [list(recorded).index(name) for name in shared]
    mapped[[list(wanted).index(name) for name in shared]] = value[rows].to(own)
    return mapped


def check_rows(state: dict[str, Tensor], rows: re.Pattern, names: Sequence[str], what: str, path: str) -> None:
    """Refuse a file whose tensors have another number of rows than it records names.

    Args:
        state: state dict of the file.
        rows: pattern of the names of the tensors.
        names: names of the rows, as the file records them.
        what: what a row stands for, in the plural.
        path: the file, for messages.

    Raises:
        InputError: if a number differs, or the names are no list of texts.
    """
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise InputError(f'{path} records the {what} {names!r}, and not a list of names')
    for name, value in state.items():
        if rows.fullmatch(name) and len(value) != len(names):
            raise InputError(
                f'{path} records {len(names)} {what} ({", ".join(names)}), but {name} in it has {len(value)} rows: '
                'what its meta says is not of these weights'
            )
