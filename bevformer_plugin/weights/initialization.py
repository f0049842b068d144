"""Starting a training from weights of another: a whole detector, or an image backbone."""

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

# Where files keep an image backbone and its neck: detectors of this family, FCOS3D, a bare ResNet.
BACKBONES = ('img_backbone.', 'backbone.', '')
NECKS = ('img_neck.', 'neck.')
SETTINGS = '.code_weights'  # ends the names of buffers that are set by the config, not learned


@dataclass(frozen=True)
class Rows:
    """Names of the rows of some tensors.

    Attributes:
        tensors: pattern of the tensors' names.
        what: what a row stands for, in the plural.
        recorded: names of the rows in the file, if it records them.
        wanted: names of the rows of the detector, if they are known.
    """

    tensors: re.Pattern
    what: str
    recorded: Sequence[str] | None
    wanted: Sequence[str] | None

    @property
    def known(self) -> bool:
        """Whether both sides know their names."""
        return self.recorded is not None and self.wanted is not None

    @property
    def differ(self) -> bool:
        """Whether rows have to be mapped by name."""
        return self.known and tuple(self.recorded) != tuple(self.wanted)

    def describe(self) -> str:
        """Which rows come from the file."""
        if not self.known:
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
    """Initialise a detector from a file and report what of it was used.

    Of a whole detector in our layout every tensor of the same name and shape is used. Tensors with one row per class
    or camera are mapped by name where both sides know the names, so classes and cameras may be others, more or fewer.
    How the loss weighs the values of a box (``code_weights``) is a setting, not learned, and stays as the config has
    it. Any other file is taken for its image backbone (``img_backbone.*``, ``backbone.*`` or a bare ResNet) and, where
    it has one of the same shape, its neck.

    Args:
        detector: initialised already; what the file lacks stays as it is.
        path: the file.
        classes: names of the detector's classes in the order of its labels, if known.
        cameras: names of its cameras in the order of its inputs, if known.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if the file is damaged, is a BEVFormer in another layout, holds weights that are not finite, has
            nothing that fits, or lacks layers of the backbone that are frozen and would stay random.
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
    """Load of another detector what fits, and report.

    Raises:
        InputError: if nothing fits, or the file records other numbers of names than its tensors have rows.
    """
    own = {name: value for name, value in detector.state_dict().items() if not name.endswith(SETTINGS)}
    state = {name: value for name, value in state.items() if not name.endswith(SETTINGS)}
    for rows in named:
        if rows.recorded is not None:
            check_rows(state, rows.tensors, rows.recorded, rows.what, path)
    whole, mapped = {}, {}
    for name in own.keys() & state.keys():
        rows = next((rows for rows in named if rows.differ and rows.tensors.fullmatch(name)), None)
        if rows is not None:
            value = map_rows(state[name], rows.recorded, own[name], rows.wanted)
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
    """Load an image backbone and, where it fits, its neck, and report.

    Raises:
        InputError: if there is no backbone that fits.
    """
    used = {}
    for part, prefixes in (('img_backbone', BACKBONES), ('img_neck', NECKS)):
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
    """Refuse to leave layers of the backbone as they were drawn that never learn.

    Args:
        detector: initialised already; a backbone with a ``Pretrained`` ``init_cfg`` has weights without the file.
        used: by name, what of the detector the file gives.
        path: the file.

    Raises:
        InputError: naming the first such parameters.
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
    """Our names of a part's tensors and the file's names of those of the same shape, under the first prefix found."""
    own = {
        name.removeprefix(f'{part}.'): value
        for name, value in detector.state_dict().items()
        if name.startswith(f'{part}.')
    }
    for prefix in prefixes:
        found = {
            f'{part}.{name}': f'{prefix}{name}'
            for name, value in own.items()
            if f'{prefix}{name}' in state and state[f'{prefix}{name}'].shape == value.shape
        }
        if found:
            return found
    return {}


def _counted(what: str, names: list[str]) -> str:
    """A line of the report: how many, and the first four."""
    return f'  {len(names)} {what}' + (f': {", ".join(names[:4])}{", ..." if len(names) > 4 else ""}' if names else '')
