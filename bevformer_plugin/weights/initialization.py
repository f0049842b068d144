"""Starting a training from the weights of another one: of a whole detector, or of an image backbone."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmengine.logging import print_log
from torch import Tensor, nn

from bevformer_plugin.errors import InputError

from .files import read_checkpoint, weights_of
from .layout import require_current
from .named_rows import CAMERA_ROWS, CLASS_ROWS, check_rows, map_rows
from .record import TrainingRecord

# Beginnings of the names of an image backbone and of its neck: in detectors of this family, FCOS3D and a bare ResNet.
BACKBONE_PREFIXES = ('img_backbone.', 'backbone.', '')
NECK_PREFIXES = ('img_neck.', 'neck.')
CONFIGURED_BUFFER = '.code_weights'  # the end of the names of buffers that the config sets and that are not learned


@dataclass(frozen=True)
class Rows:
    """The names of the rows of some tensors, in a file and in a detector.

    Attributes:
        tensors: pattern of the names of these tensors.
        what: what a row stands for, in the plural, such as 'classes'.
        recorded: names of the rows in the file, or None if it does not record them.
        wanted: names of the rows of the detector, or None if they are not known.
    """

    tensors: re.Pattern
    what: str
    recorded: Sequence[str] | None
    wanted: Sequence[str] | None

    @property
    def known(self) -> bool:
        """Whether file and detector both know the names of their rows."""
        return self.recorded is not None and self.wanted is not None

    @property
    def differ(self) -> bool:
        """Whether rows have to be mapped by name, because file and detector have other names or another order."""
        if self.recorded is None or self.wanted is None:
            return False
        return tuple(self.recorded) != tuple(self.wanted)

    def map(self, value: Tensor, own: Tensor) -> Tensor | None:
        """Map a tensor of the file by the names of its rows, see :func:`.named_rows.map_rows`."""
        if self.recorded is None or self.wanted is None:
            return None
        return map_rows(value, self.recorded, own, self.wanted)

    def describe(self) -> str:
        """Write a line of the report about the rows that come from the file."""
        if self.recorded is None or self.wanted is None:
            return f'    {self.what} have no names on one side: where the number is the same, so is the order'
        new = [name for name in self.wanted if name not in self.recorded]
        shared = [name for name in self.wanted if name in self.recorded]
        return (
            f'    {self.what} from the file: {", ".join(shared) or "none"}'
            f'; {self.what} that it does not know: {", ".join(new) or "none"}'
        )


def initialize(
    detector: nn.Module, path: str, classes: Sequence[str] | None = None, cameras: Sequence[str] | None = None
) -> None:
    """Initialise a detector from a file, and log which tensors were used.

    From a file of a whole detector in our layout, every tensor of the same name and shape is used. Tensors with one
    row per class or camera are mapped by name if file and detector know the names, so classes and cameras may differ.
    The weights of a box's values in the loss (``code_weights``) are not learned and stay as the config sets them. From
    any other file the image backbone is used (``img_backbone.*``, ``backbone.*`` or a bare ResNet), and the neck if
    its shapes are the same.

    Args:
        detector: an initialised detector; tensors that the file lacks stay as they are.
        path: the file.
        classes: names of the detector's classes in the order of its labels, if known.
        cameras: names of its cameras in the order of its inputs, if known.

    Raises:
        FileNotFoundError: if the file does not exist.
        InputError: if the file is damaged, is a BEVFormer in another layout, holds weights that are not finite, has no
            tensor that fits, or lacks layers of the backbone that are frozen and would stay random.
    """
    content = read_checkpoint(path)
    state = weights_of(content, path)
    require_current(state, path)
    if not any(name.startswith('bev_encoder.') for name in state):
        _use_backbone(detector, state, path)
        return
    record = TrainingRecord.of_checkpoint(content)
    named = (
        Rows(CLASS_ROWS, 'classes', record.classes, classes),
        Rows(CAMERA_ROWS, 'cameras', record.cameras, cameras),
    )
    _use_detector(detector, state, path, named)


def _use_detector(detector: nn.Module, state: dict[str, Tensor], path: str, named: tuple[Rows, ...]) -> None:
    """Load the tensors of another detector that fit, and log which.

    Raises:
        InputError: if no tensor fits, or the file's tensors have another number of rows than it records names.
    """
    own = {name: value for name, value in detector.state_dict().items() if not name.endswith(CONFIGURED_BUFFER)}
    state = {name: value for name, value in state.items() if not name.endswith(CONFIGURED_BUFFER)}
    for rows in named:
        if rows.recorded is not None:
            check_rows(state, rows.tensors, rows.recorded, rows.what, path)
    whole, mapped = {}, {}
    for name in own.keys() & state.keys():
        rows = next((rows for rows in named if rows.differ and rows.tensors.fullmatch(name)), None)
        if rows is not None:
            value = rows.map(state[name], own[name])
            if value is not None:
                mapped[name] = value
        elif state[name].shape == own[name].shape:
            whole[name] = state[name]
    used = {**whole, **mapped}
    if not used:
        raise InputError(
            f'nothing of {path} fits this detector: of its {len(state)} tensors {len(own.keys() & state.keys())} '
            'have a name of this one, and those have another shape'
        )
    _refuse_random_frozen(detector, used, path)
    detector.load_state_dict(used, strict=False)
    lines = [f'{path}: {len(used)} tensors of {len(state)} used, {len(mapped)} of them row by row']
    lines += [rows.describe() for rows in named if rows.differ or not rows.known]
    lines.append(_counted('left at their initialisation', [name for name in own if name not in used]))
    lines.append(_counted('in the file not used', sorted(set(state) - set(used))))
    print_log('\n'.join(lines), logger='current')


def _use_backbone(detector: nn.Module, state: dict[str, Tensor], path: str) -> None:
    """Load an image backbone and, if it fits, its neck, and log which tensors were used.

    Raises:
        InputError: if the file has no backbone that fits.
    """
    used = {}
    for part, prefixes in (('img_backbone', BACKBONE_PREFIXES), ('img_neck', NECK_PREFIXES)):
        used.update(_matching(detector, part, state, prefixes))
    wanted = [name for name in detector.state_dict() if name.startswith('img_backbone.')]
    if not any(name in used for name in wanted):
        raise InputError(
            f'{path} has no backbone for this detector: its tensors are named '
            f'{", ".join(list(state)[:3])}, the backbone needs {", ".join(wanted[:3])}'
        )
    _refuse_random_frozen(detector, used, path)
    detector.load_state_dict({name: state[source] for name, source in used.items()}, strict=False)
    lines = [
        f'{path}: {len(used)} tensors of {len(state)} used'
        f' ({sum(name.startswith("img_neck.") for name in used)} of them for the neck)',
        _counted('of the backbone not in the file', [name for name in wanted if name not in used]),
        _counted('in the file not used', sorted(set(state) - set(used.values()))),
    ]
    print_log('\n'.join(lines), logger='current')


def _refuse_random_frozen(detector: nn.Module, used: dict, path: str) -> None:
    """Refuse a file that leaves layers of the backbone random although they never learn.

    Args:
        detector: an initialised detector; with an ``init_cfg`` of type ``Pretrained`` its backbone is not random.
        used: the tensors that the file gives, by their name in the detector.
        path: the file, for messages.

    Raises:
        InputError: if frozen parameters of the backbone are missing; the message names the first ones.
    """
    init_cfg = getattr(detector.img_backbone, 'init_cfg', None)
    entries = init_cfg if isinstance(init_cfg, list) else [init_cfg]
    if any(entry and entry.get('type') == 'Pretrained' for entry in entries):
        return
    random = [
        name
        for name, parameter in detector.named_parameters()
        if name.startswith('img_backbone.') and not parameter.requires_grad and name not in used
    ]
    if random:
        raise InputError(
            f'{path} lacks {len(random)} parameters of the backbone that are frozen (first: {", ".join(random[:3])}): '
            'they would stay random. Start from a file of the same backbone, or let them learn with '
            'frozen_stages=-1, norm_cfg.requires_grad=True and norm_eval=False of model.img_backbone'
        )


def _matching(detector: nn.Module, part: str, state: dict, prefixes: tuple[str, ...]) -> dict[str, str]:
    """Match a part's tensors with the file's by name and shape.

    Args:
        detector: the detector.
        part: name of the part, such as 'img_backbone'.
        state: the state dict of the file.
        prefixes: beginnings of the names in the file; the first under which any tensor matches is taken.

    Returns:
        The file's names by the detector's.
    """
    own = {
        name.removeprefix(f'{part}.'): value
        for name, value in detector.state_dict().items()
        if name.startswith(f'{part}.')
    }
    for prefix in prefixes:
        matching = {
            f'{part}.{name}': f'{prefix}{name}'
            for name, value in own.items()
            if f'{prefix}{name}' in state and state[f'{prefix}{name}'].shape == value.shape
        }
        if matching:
            return matching
    return {}


def _counted(what: str, names: list[str]) -> str:
    """Write a line of the report with the number of names and the first four of them."""
    return f'  {len(names)} {what}' + (f': {", ".join(names[:4])}{", ..." if len(names) > 4 else ""}' if names else '')
