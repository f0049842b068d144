"""Search for settings of a config that nothing reads, so that nobody believes they had an effect."""

import ast
import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mmdet3d import registry
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.optim.scheduler.param_scheduler import ReduceOnPlateauParamScheduler
from mmengine.registry import FUNCTIONS, Registry
from torch.utils.data import DataLoader

from bevformer_plugin.errors import InputError

PARTS = ('train', 'val', 'test')
DATALOADERS = tuple(f'{part}_dataloader' for part in PARTS)
# Top-level names of a config that the tools or MMEngine's Runner read; any other one is a variable of the file.
SECTIONS = {
    'model',
    *DATALOADERS,
    'val_evaluator',
    'test_evaluator',
    'optim_wrapper',
    'param_scheduler',
    'auto_scale_lr',
    'train_cfg',
    'val_cfg',
    'test_cfg',
    'default_hooks',
    'custom_hooks',
    'custom_imports',
    'default_scope',
    'env_cfg',
    'model_wrapper_cfg',
    'load_from',
    'resume',
    'launcher',
    'log_level',
    'log_processor',
    'visualizer',
    'experiment_name',
    'randomness',
    'work_dir',
}
# Sections that an option of the command line overrides, whatever the config sets.
FLAGS = {'resume': '--resume', 'randomness': '--seed', 'work_dir': '--work-dir'}
# Sections that MMEngine reads together with the config file, before an option could change them.
READ_WITH_THE_FILE = {'custom_imports', 'default_scope'}
# Sections and settings that only MMEngine's Runner reads, with the value that changes nothing under Lightning.
RUNNER_ONLY = {
    'launcher': 'none',
    'log_processor': None,
    'visualizer': None,
    'experiment_name': None,
    'log_level': 'INFO',
    'model_wrapper_cfg': {'type': 'MMDistributedDataParallel', 'broadcast_buffers': True},
    'val_cfg': {},
    'test_cfg': {},
    'env_cfg.dist_cfg': {'backend': 'nccl'},
    'env_cfg.cudnn_benchmark': False,
    'default_hooks.timer': {'type': 'IterTimerHook'},
    'default_hooks.param_scheduler': {'type': 'ParamSchedulerHook'},
    'default_hooks.sampler_seed': {'type': 'DistSamplerSeedHook'},
    'default_hooks.match_checkpoint': {'type': 'MatchCheckpoint'},
    'default_hooks.checkpoint.max_keep_ckpts': 2,
    'default_hooks.checkpoint.rule': 'greater',
}
# The settings of a section that have an effect under Lightning, or whose only allowed value is in RUNNER_ONLY.
LIGHTNING_READS = {
    'optim_wrapper': {
        'type',
        'optimizer',
        'paramwise_cfg',
        'constructor',
        'clip_grad',
        'accumulative_counts',
        'dtype',
        'loss_scale',
    },
    'env_cfg': {'mp_cfg', 'dist_cfg', 'cudnn_benchmark'},
    'env_cfg.mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'default_hooks': {'timer', 'logger', 'param_scheduler', 'checkpoint', 'sampler_seed', 'match_checkpoint'},
    'default_hooks.logger': {'type', 'interval'},
    'default_hooks.checkpoint': {'type', 'interval', 'by_epoch', 'max_keep_ckpts', 'save_best', 'rule'},
}
# Keys that MMEngine removes from a config before it calls the class of the type given there.
READ_BY_MMENGINE = {
    '_scope_',
    'type',
    'convert_to_iter_based',
    'init_cfg',
    'priority',
    'dataset',
    'num_batch_per_epoch',
    'by_epoch',
    'paramwise_cfg',
    'constructor',
}
# Keys of layers that mmcv builds by its own rules, which take arguments beside those of the layer.
MMCV_LAYERS = {'norm_cfg', 'conv_cfg', 'act_cfg', 'dcn', 'plugins', 'upsample_cfg', 'init_cfg'}
REGISTRIES: tuple[Registry, ...] = (
    registry.MODELS,
    registry.TASK_UTILS,
    registry.DATASETS,
    registry.TRANSFORMS,
    registry.DATA_SAMPLERS,
    registry.METRICS,
    registry.HOOKS,
    registry.OPTIMIZERS,
    registry.PARAM_SCHEDULERS,
    registry.LOOPS,
    FUNCTIONS,
    registry.OPTIM_WRAPPERS,
    registry.WEIGHT_INITIALIZERS,
    registry.MODEL_WRAPPERS,
    registry.VISUALIZERS,
    registry.VISBACKENDS,
    registry.LOG_PROCESSORS,
    registry.OPTIM_WRAPPER_CONSTRUCTORS,
)


def refuse_unread_variables(path: str, cfg: Config) -> None:
    """Refuse a config file that sets a variable which no config reads, and check its base configs likewise.

    MMEngine reads base configs first. A child config that only sets ``image_size`` again therefore changes nothing,
    because the base config has used its own value already.

    Args:
        path: the config file.
        cfg: the config that was read from it.

    Raises:
        InputError: if there is such a variable; the message names the settings that hold the inherited value.
    """
    _refuse_unread_below(Path(path), cfg, frozenset())


def _refuse_unread_below(path: Path, cfg: Config, read_by_children: frozenset[str]) -> None:
    assigned, used, bases = _names(path)
    for name in sorted(assigned - SECTIONS - used - read_by_children):
        raise InputError(_unread_variable(f'{path} sets', name, path, cfg))
    passed_on = read_by_children | _base_names(path.read_text(encoding='utf-8'))
    for base in bases:
        if '::' not in base:  # configs of other packages are not checked
            _refuse_unread_below(path.parent / base, cfg, passed_on)


def _names(path: Path) -> tuple[set[str], set[str], list[str]]:
    """List the public variables that a config file sets, the names that it uses, and its base configs."""
    if path.suffix != '.py':
        content = load(str(path))
        bases = content.pop('_base_', [])
        return set(content), set(), [bases] if isinstance(bases, str) else bases
    tree = ast.parse(path.read_text(encoding='utf-8'))
    assigned: set[str] = set()
    bases: list[str] = []
    for statement in tree.body:
        if not isinstance(statement, ast.Assign):
            continue
        for target in statement.targets:
            names = [node.id for node in ast.walk(target) if isinstance(node, ast.Name)]
            if '_base_' in names:
                # MMEngine evaluates this expression as well, without any names.
                value = eval(compile(ast.Expression(statement.value), str(path), 'eval'), {})
                bases = [value] if isinstance(value, str) else list(value)
            assigned.update(name for name in names if not name.startswith('_'))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return assigned, used, bases


def _base_names(text: str) -> frozenset[str]:
    """Find the names that a config takes from its base as ``_base_.name`` or ``{{_base_.name}}``."""
    return frozenset(re.findall(r'_base_\.(\w+)', text))


def _unread_variable(who: str, name: str, path: Path, cfg: Config) -> str:
    """Write the message about a variable that nothing reads."""
    inherited = _inherited(path, name)
    places = [] if inherited is None else list(_places(name, inherited, cfg))
    if places:
        return (
            f'{who} {name}, which has no effect: the value of the base config, {inherited}, has been handed down '
            f'already, to {", ".join(places)}. Set these instead, or change {name} in the file that hands it down'
        )
    return f'{who} {name}, which nothing reads{suggestion(name, SECTIONS)}'


def _inherited(path: Path, name: str) -> object:
    """Look up a variable in the nearest base config that sets it; None if no base config does."""
    for base in _names(path)[2]:
        if '::' not in base:
            content = Config.fromfile(str(path.parent / base), import_custom_modules=False)
            if name in content:
                return content[name]
    return None


def _places(name: str, value: object, cfg: Config) -> Iterator[str]:
    """Yield the places in the config's sections that hold the value of a variable.

    A number or a text may be equal by chance, so it counts only if its setting has the variable's name.
    """
    for section in cfg:
        if section in SECTIONS:
            yield from _places_below(name, value, cfg[section], section)


def _places_below(name: str, value: object, node: object, place: str) -> Iterator[str]:
    """Yield the places at or below ``place``, whose content is ``node``, that hold the value."""
    if isinstance(value, dict | list | tuple):
        holds_value = isinstance(node, list | tuple | dict) and _plain(node) == _plain(value)
    else:
        holds_value = node == value and place.endswith(f'.{name}')
    if holds_value:
        yield place
    elif isinstance(node, dict):
        for key, child in node.items():
            yield from _places_below(name, value, child, f'{place}.{key}')


def _plain(value: dict | list | tuple) -> dict | list:
    """Turn a tuple into a list, since configs and command lines write either."""
    return value if isinstance(value, dict) else list(value)


def suggestion(name: str, known: Iterable[str], least: float = 0.75) -> str:
    """Write the end of a message that suggests the most similar known name; empty if none is similar.

    Args:
        name: the unknown name.
        known: names to suggest.
        least: similarity from 0 to 1 that a suggestion has at least.
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=least)
    return f'; did you mean {near[0]}?' if near else ''


def is_config_of(config: dict | None, registry: Registry, wanted: type) -> bool:
    """Tell whether a config is there and builds an object of a class or of one derived from it."""
    kind = registry.get(config['type']) if config else None
    return isinstance(kind, type) and issubclass(kind, wanted)


def refuse_unknown_options(options: dict, cfg: Config) -> None:
    """Refuse command-line options that do not change a section of the config.

    A name that the config has handed down may be given beside all places that it went to, with the value that these
    are given: then the command line says one thing.

    Args:
        options: values of ``--cfg-options`` by dotted name.
        cfg: the config as read from its file, before the options are applied.

    Raises:
        InputError: if there is such an option; the message says what to set instead.
    """
    for option in options:
        name = option.split('.')[0]
        if name in FLAGS:
            raise InputError(f'--cfg-options {option}: give {FLAGS[name]} instead, which decides about it')
        if name in READ_WITH_THE_FILE:
            raise InputError(f'--cfg-options {option} has no effect, {name} is read with the file: set it in a config')
        if name in SECTIONS:
            continue
        places = list(_places(name, cfg[name], cfg)) if name in cfg else []
        if places and all(options.get(place) == options[option] for place in places):
            continue
        if places:
            raise InputError(
                f'--cfg-options {option} has no effect: the config has handed {name} down already, to '
                f'{", ".join(places)}. Set these instead'
            )
        raise InputError(f'--cfg-options {option}: nothing reads {name}{suggestion(name, SECTIONS)}')


def refuse_unread_arguments(cfg: Config) -> None:
    """Refuse arguments that the class of their ``type`` does not take, and types that are not registered.

    Raises:
        InputError: if there is one; the message names its place in the config and the most similar known name.
    """
    for section in sorted(set(cfg) & SECTIONS):
        implied = {'type': 'EpochBasedTrainLoop'} if section == 'train_cfg' else {}
        _check_arguments({**implied, **cfg[section]} if implied else cfg[section], section)
    for name in DATALOADERS:
        known = {*inspect.signature(DataLoader.__init__).parameters, *READ_BY_MMENGINE}
        for key in sorted(set(cfg.get(name) or {}) - known):
            raise InputError(f'{name}.{key}: a dataloader takes no such argument{suggestion(key, sorted(known))}')


def _check_arguments(node: object, place: str) -> None:
    """Refuse unknown types and arguments in the part of a config at ``place``, and in everything below it."""
    if isinstance(node, list | tuple):
        for index, child in enumerate(node):
            _check_arguments(child, f'{place}[{index}]')
    if not isinstance(node, dict):
        return
    kind = node.get('type')
    if isinstance(kind, str):
        known = _arguments(_registered(kind, place))
        unknown = [] if known is None else sorted(map(str, set(node) - READ_BY_MMENGINE - known))
        if known is not None and unknown:
            similar = suggestion(unknown[0], sorted(known))
            if unknown[0].isdigit():
                similar = f'; {place} is no list here, so leave the .{unknown[0]} out'
            raise InputError(f'{place}.{unknown[0]}: {kind} takes no such argument{similar}')
    for key, child in node.items():
        if key not in MMCV_LAYERS:
            _check_arguments(child, f'{place}.{key}')


def _registered(kind: str, place: str) -> Callable:
    """Find a class or function in the registries.

    Raises:
        InputError: if none has the name; the message suggests the most similar one.
    """
    for candidates in REGISTRIES:
        registered = candidates.get(kind)
        if registered is not None:
            return registered
    names = {name for candidates in REGISTRIES for name in candidates.module_dict}
    raise InputError(f'{place}.type: nothing is registered as {kind!r}{suggestion(kind, sorted(names))}')


def _arguments(function: Callable) -> set[str] | None:
    """List the names of the arguments that a class or function takes; None if it takes any name.

    A class that passes unknown arguments on to its base classes takes theirs as well.
    """
    if not inspect.isclass(function):
        parameters = inspect.signature(function).parameters.values()
        open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        return None if open_ended else {parameter.name for parameter in parameters}
    names: set[str] = set()
    for base in inspect.getmro(function):
        if '__init__' not in vars(base) or base is object:
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        names.update(parameter.name for parameter in parameters)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return names
    return None


def refuse_settings_of_the_runner(cfg: Config) -> None:
    """Refuse settings that have an effect under MMEngine's Runner but not under Lightning.

    Raises:
        InputError: if there is one; the message names it, and ``--engine mmengine`` as the way to use it.
    """
    remedy = 'has no effect under Lightning; leave it out, or use --engine mmengine'
    for place, value in RUNNER_ONLY.items():
        setting = _at(cfg, place)
        if setting is not None and setting != value:
            raise InputError(f'{place}={setting} {remedy}')
    for place, known in LIGHTNING_READS.items():
        section = _at(cfg, place)
        for key in sorted(set(section) - known) if isinstance(section, dict) else ():
            raise InputError(f'{place}.{key} {remedy}{suggestion(key, sorted(known))}')
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
        if is_config_of(scheduler, registry.PARAM_SCHEDULERS, ReduceOnPlateauParamScheduler):
            raise InputError(f'param_scheduler has {scheduler["type"]}, which is stepped by scores and {remedy}')


def _at(cfg: Config, place: str) -> object:
    """Look up a setting by its dotted name; None if it is not set."""
    node: object = cfg
    for key in place.split('.'):
        node = node.get(key) if isinstance(node, dict | Config) else None
    return node
