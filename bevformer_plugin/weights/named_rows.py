"""Mapping of tensors with one row per class or per camera, so that weights follow names when their order changes."""

import re
from collections.abc import Sequence

from torch import Tensor

from bevformer_plugin.errors import InputError

# Names of the tensors that have one row per class, or several, of which the classes run fastest.
CLASS_ROWS = re.compile(
    r'heads\.\w+\.(cls_branches\.\d+\.6|queries\.heatmap|heatmap)\.(weight|bias)'
    r'|heads\.\w+\.queries\.class_embedding\.weight'
    r'|heads\.\w+\.box2d\.cls_logits\.(weight|bias)'
    r'|heads\.\w+\.box3d\.box3d_(quat|ctr|depth|size|conf)\.0\.(weight|bias)'
)
ROWS_PER_CLASS = re.compile(r'.*\.box3d_(quat|ctr|size)\..*')
SEVERAL_ROWS = {'quat': 4, 'ctr': 2, 'size': 3}  # of the perspective head; one in all other tensors
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
    return {
        name: value.unflatten(0, (-1, len(order)))[:, order].flatten(0, 1) if CLASS_ROWS.fullmatch(name) else value
        for name, value in state.items()
    }


def map_rows(value: Tensor, recorded: Sequence[str], own: Tensor, wanted: Sequence[str]) -> Tensor | None:
    """Copy the rows of the file's tensor into the detector's tensor, wherever both have a row of the same name.

    Args:
        value: (k * len(recorded), ...) tensor of the file, whose names run fastest.
        recorded: names of its rows.
        own: (k * len(wanted), ...) initialised tensor of the detector.
        wanted: names of its rows.

    Returns:
        The detector's tensor with the copied rows; None if no name is shared or the rows have different shapes.
    """
    shared = [name for name in wanted if name in recorded]
    several = len(own) // len(wanted)
    if not shared or value.shape[1:] != own.shape[1:] or len(own) != several * len(wanted):
        return None
    if len(value) != several * len(recorded):
        return None
    mapped = own.clone().unflatten(0, (several, -1))
    rows = [list(recorded).index(name) for name in shared]
    places = [list(wanted).index(name) for name in shared]
    mapped[:, places] = value.unflatten(0, (several, -1))[:, rows].to(own)
    return mapped.flatten(0, 1)


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
        if rows.fullmatch(name) and len(value) != _rows_per_name(name) * len(names):
            raise InputError(
                f'{path} records {len(names)} {what} ({", ".join(names)}), but {name} in it has {len(value)} rows: '
                'what its meta says is not of these weights'
            )


def _rows_per_name(tensor: str) -> int:
    """Tell how many rows a tensor has for each class or camera."""
    several = ROWS_PER_CLASS.fullmatch(tensor)
    return SEVERAL_ROWS[several[1]] if several else 1
