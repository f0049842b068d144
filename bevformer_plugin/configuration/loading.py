"""Reading a config: what is in it, what the command line changes, and what nothing reads."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config
from mmengine.registry import init_default_scope

from bevformer_plugin.errors import InputError

from .packaged import find_config
from .unread_settings import refuse_unknown_options, refuse_unread_arguments, refuse_unread_variables


def load_config(name: str, options: dict | None = None) -> Config:
    """Read a config and apply ``--cfg-options``; the registries are ready afterwards.

    Args:
        name: path of a config file, or name of a packaged config such as ``bevformer/bevformer_tiny``; see
            :func:`.packaged.find_config`.
        options: values by dotted key.

    Raises:
        InputError: if there is no such config, if it has no model or counts iterations, if the options do not fit it,
            or if it or they set something that nothing reads.
    """
    path = str(find_config(name))
    try:
        cfg = Config.fromfile(path)
    except (
        AssertionError,  # a base config of a package that MMEngine does not know
        AttributeError,
        FileNotFoundError,
        ImportError,
        KeyError,
        NameError,
        SyntaxError,
        TypeError,
    ) as error:
        raise InputError(f'config {path} cannot be read: {type(error).__name__}: {error}') from error
    if 'model' not in cfg:
        raise InputError(f'config {path} has no model; configs under _base_ are parts of others')
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    refuse_unread_variables(path, cfg)
    refuse_unknown_options(options or {}, cfg)
    try:
        cfg.merge_from_dict(options or {})
    except (TypeError, KeyError, IndexError) as error:
        raise InputError(f'--cfg-options {options} do not fit config {path}: {error}') from error
    _refuse_iterations(cfg.get('train_cfg') or {})
    refuse_unread_arguments(cfg)
    return cfg


@contextmanager
def building(section: str) -> Iterator[None]:
    """Turn what constructors raise about their arguments into an InputError that names the section of the config.

    Args:
        section: of which something is built from the registries.
    """
    try:
        yield
    except InputError:
        raise
    except (AssertionError, AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
        raise InputError(f'{section} cannot be built from the config: {type(error).__name__}: {error}') from error


def _refuse_iterations(loop: dict) -> None:
    """Refuse a training loop that does not count epochs."""
    if loop.get('type', 'EpochBasedTrainLoop') != 'EpochBasedTrainLoop' or 'max_iters' in loop:
        raise InputError(
            f'train_cfg counts iterations (type={loop.get("type")}, max_iters={loop.get("max_iters")}), and runs are '
            'counted in epochs here: set train_cfg.max_epochs, without type and max_iters'
        )
    if loop.get('by_epoch', True) is not True:
        raise InputError('train_cfg counts iterations (by_epoch=False); set max_epochs instead')
