"""Checks of ``optim_wrapper.paramwise_cfg``, of which MMEngine ignores what is unknown and what matches nothing."""

from torch import nn, optim

from bevformer_plugin.configuration.unread_settings import suggestion
from bevformer_plugin.errors import InputError

CONSTRUCTOR = 'DefaultOptimWrapperConstructor'  # of MMEngine; others have settings of their own
# What MMEngine's constructor reads of paramwise_cfg, and of each of its custom_keys.
PARAMWISE_SETTINGS = (
    'custom_keys',
    'bias_lr_mult',
    'bias_decay_mult',
    'norm_decay_mult',
    'flat_decay_mult',
    'dwconv_decay_mult',
    'dcn_offset_lr_mult',
    'bypass_duplicate',
)
MULTIPLIERS = ('lr_mult', 'decay_mult')
LEAST_SIMILAR = 0.6  # of a name that is suggested


def check_parameter_groups(optim_wrapper: dict, detector: nn.Module, optimizer: optim.Optimizer) -> None:
    """Refuse settings for groups of parameters that change no parameter's learning.

    MMEngine gives a parameter the settings of the longest of ``custom_keys`` that is a part of its name.

    Args:
        optim_wrapper: the section of the config.
        detector: the detector whose parameters are trained.
        optimizer: the optimizer that was built for them.

    Raises:
        InputError: for an unknown setting, a key that is in the name of no parameter, or one all of whose parameters
            are taken by longer keys.
    """
    paramwise = optim_wrapper.get('paramwise_cfg') or {}
    if optim_wrapper.get('constructor', CONSTRUCTOR) != CONSTRUCTOR:
        return
    _refuse_unknown(paramwise, PARAMWISE_SETTINGS, 'optim_wrapper.paramwise_cfg')
    keys = paramwise.get('custom_keys') or {}
    settings = (*MULTIPLIERS, *optimizer.defaults)
    for key, values in keys.items():
        place = f'optim_wrapper.paramwise_cfg.custom_keys[{key!r}]'
        if not isinstance(values, dict):
            raise InputError(f'{place} is a dict such as dict(lr_mult=0.1), got {values!r}')
        _refuse_unknown(values, settings, place)
    names = [name for name, _ in detector.named_parameters()]
    order = sorted(sorted(keys), key=len, reverse=True)  # MMEngine's
    taken = {next((key for key in order if key in name), '') for name in names}
    for key in keys:
        if key in taken:
            continue
        place = f'optim_wrapper.paramwise_cfg.custom_keys has {key!r}'
        if any(key in name for name in names):
            raise InputError(f'{place}, which has no effect: longer keys take all parameters with it in their names')
        parts = sorted({'.'.join(name.split('.')[:depth]) for name in names for depth in (1, 2)})
        similar = suggestion(key, parts, LEAST_SIMILAR)
        raise InputError(
            f'{place}, which is in the name of no parameter'
            + (similar or f': the parts of the model are {", ".join(parts)}')
        )


def _refuse_unknown(values: dict, known: tuple[str, ...], place: str) -> None:
    unknown = [str(name) for name in values if name not in known]
    if unknown:
        similar = suggestion(unknown[0], known, LEAST_SIMILAR)
        raise InputError(f'{place}.{unknown[0]} has no effect' + (similar or f': {", ".join(known)} are known'))
