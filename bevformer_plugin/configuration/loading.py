"""Reading a config, applying the changes of the command line, and refusing settings that nothing reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from bevformer_plugin.errors import InputError

from .moved_settings import at_places_of_today, take_over_moved_settings
from .packaged import find_config
from .unread_settings import DATALOADERS, refuse_unknown_options, refuse_unread_arguments, refuse_unread_variables

# Sections and settings that hold further settings by name, wherever they are set.
SECTIONS_OF_SETTINGS = (
    'model',
    'model.bev_encoder',
    'model.heads',
    'model.ego_motion',
    *DATALOADERS,
    'optim_wrapper',
    'auto_scale_lr',
    'train_cfg',
    'val_cfg',
    'test_cfg',
    'default_hooks',
    'default_hooks.logger',
    'default_hooks.checkpoint',
    'env_cfg',
    'env_cfg.mp_cfg',
)


def load_config(name: str | Path, options: dict[str, object] | None = None) -> Config:
    """Read a config, apply ``--cfg-options`` to it, and prepare the registries for building from it.

    Args:
        name: path of a config file, or name of a packaged config such as ``bevformer/bevformer_tiny``; see
            :func:`.packaged.find_config`.
        options: values by dotted key.

    Raises:
        InputError: if there is no such config, if it cannot be read, has no model or counts iterations, if the options
            do not fit it, or if one of them sets something that nothing reads.
    """
    path = str(find_config(str(name)))
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program of the user's, which can raise anything
        raise InputError(f'config {path} cannot be read: {type(error).__name__}: {error}') from error
    if 'model' not in cfg:
        raise InputError(f'config {path} has no model; configs under _base_ are parts of others')
    scope = cfg.get('default_scope', 'mmdet3d')
    if not isinstance(scope, str):
        raise InputError(f'default_scope is the name of a package such as mmdet3d, got {scope!r}')
    init_default_scope(scope)
    refuse_unread_variables(path, cfg)
    take_over_moved_settings(cfg)
    options = at_places_of_today(options or {}, cfg)
    refuse_unknown_options(options, cfg)
    try:
        cfg.merge_from_dict(options)
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(f'--cfg-options {options} do not fit config {path}: {error}') from error
    _check_section_types(cfg)
    _refuse_iterations(cfg.get('train_cfg') or {})
    refuse_unread_arguments(cfg)
    return cfg


@contextmanager
def building(section: str) -> Iterator[None]:
    """Turn what constructors raise about their arguments into an InputError that names the section of the config.

    Args:
        section: name of the section from which the block builds something through the registries.
    """
    try:
        yield
    except InputError:
        raise
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        ImportError,
        IndexError,
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise InputError(f'{section} cannot be built from the config: {type(error).__name__}: {error}') from error


def _check_section_types(cfg: Config) -> None:
    """Refuse sections of the wrong type, such as ``model=5``, before any code looks into them."""
    for place in SECTIONS_OF_SETTINGS:
        node: object = cfg
        for key in place.split('.'):
            node = node.get(key) if isinstance(node, dict | Config) else None
        if node is not None and not isinstance(node, dict):
            raise InputError(f'{place} is a dict of settings, got {node!r}')
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in schedulers if isinstance(schedulers, list | tuple) else [schedulers]:
        if not isinstance(scheduler, dict) or not isinstance(scheduler.get('type'), str):
            raise InputError(f'param_scheduler is a list of schedules with a type, got {scheduler!r} in it')


def _refuse_iterations(loop: dict) -> None:
    """Refuse a training loop that does not count epochs."""
    if loop.get('type', 'EpochBasedTrainLoop') != 'EpochBasedTrainLoop' or 'max_iters' in loop:
        raise InputError(
            f'train_cfg counts iterations (type={loop.get("type")}, max_iters={loop.get("max_iters")}), and runs are '
            'counted in epochs here: set train_cfg.max_epochs, without type and max_iters'
        )
    if loop.get('by_epoch', True) is not True:
        raise InputError('train_cfg counts iterations (by_epoch=False); set max_epochs instead')
