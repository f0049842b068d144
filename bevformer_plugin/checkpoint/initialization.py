"""Starting a training from weights of another: a whole detector, or an image backbone."""

from mmengine.logging import print_log
from torch import nn

from .files import load_state, read_checkpoint
from .layout import is_published

# Where files keep an image backbone and its neck: detectors of this family, FCOS3D, a bare ResNet.
BACKBONES = ('img_backbone.', 'backbone.', '')
NECKS = ('img_neck.', 'neck.')


def initialize(detector: nn.Module, path: str) -> None:
    """Initialise a detector from a file and report what of it was used.

    A file with a whole detector in our layout has to fit it strictly; how the loss weighs the values of a box
    (``code_weights``) is a setting, not learned, and stays as the config has it. Any other file is taken for its
    image backbone (``img_backbone.*``, ``backbone.*`` or a bare ResNet) and, where it has one of the same shape, its
    neck.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is a published BEVFormer, or has no backbone that fits.
    """
    content = read_checkpoint(path)
    state = content.get('state_dict', content)
    if is_published(state):
        raise ValueError(f'{path} is in the published layout: convert it with tools/convert_checkpoint.py first')
    if any(name.startswith('pts_bbox_head.transformer.') for name in state):
        own = detector.state_dict()
        kept = {name: own[name] for name in state if name.endswith('.code_weights') and name in own}
        load_state(detector, {**state, **kept}, path)
        return
    used = {}
    for part, prefixes in (('img_backbone', BACKBONES), ('img_neck', NECKS)):
        used.update(_matching(detector, part, state, prefixes))
    own = detector.state_dict()
    wanted = [name for name in own if name.startswith('img_backbone.')]
    found = [name for name in wanted if name in used]
    if not found:
        raise ValueError(
            f'{path} has no backbone for this detector: its tensors are named '
            f'{", ".join(list(state)[:3])}, the backbone needs {", ".join(wanted[:3])}'
        )
    detector.load_state_dict({name: state[source] for name, source in used.items()}, strict=False)
    print_log(_report(path, [name for name in wanted if name not in used], used, state), logger='current')


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


def _report(path: str, missing: list[str], used: dict[str, str], state: dict) -> str:
    """Three lines: used, left at their own initialisation, left in the file."""
    left = sorted(set(state) - set(used.values()))
    lines = [
        f'{path}: {len(used)} tensors of {len(state)} used'
        f' ({sum(name.startswith("img_neck.") for name in used)} of them for the neck)'
    ]
    for what, names in (('of the backbone not in the file', missing), ('in the file not used', left)):
        lines.append(
            f'  {len(names)} {what}'
            + (f': {", ".join(names[:4])}{", ..." if len(names) > 4 else ""}' if names else '')
        )
    return '\n'.join(lines)
