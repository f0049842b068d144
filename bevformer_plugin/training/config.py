"""Checks that refuse a config that cannot run, before anything long starts."""

import inspect

from mmdet3d.registry import METRICS
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from nuscenes.eval.detection.constants import DETECTION_NAMES
from torch.nn.utils import clip_grad_norm_

from bevformer_plugin.configuration import building
from bevformer_plugin.configuration.unread_settings import FLAGS
from bevformer_plugin.datasets.described import DescribedDataset
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import MEAN_ERRORS, MapCounts, MapMetric, NuScenesDevkitMetric, drop_maps
from bevformer_plugin.maps import find_protocol

from .averaging import averages_weights
from .pretrained import fetch_pretrained

DETECTION_SCORE = 'nuscenes/NDS'
# Settings of test evaluators that options of tools/test.py decide about.
DESTINATIONS = {'results_path': '--out', 'out_dir': '--maps-out', 'format_only': '--format-only'}
LOOP_SETTINGS = ('type', 'by_epoch', 'max_epochs', 'val_interval', 'val_begin')


def check_training(cfg: Config) -> None:
    """Refuse a config that cannot train, and fetch the files that its model starts from.

    Raises:
        InputError: if a section is missing or a setting has an impossible value, a file cannot be fetched, or model
            and training data have different ranges.
    """
    _require_sections(
        cfg, ('train_dataloader', 'val_dataloader', 'val_evaluator', 'optim_wrapper', 'train_cfg'), 'train'
    )
    _check_loop(cfg.train_cfg)
    for part in ('train', 'val'):
        _check_dataloader(cfg, part)
    _check_evaluator(cfg, 'val')
    _refuse_unscored_validation(cfg)
    _check_optimization(cfg)
    _check_intervals(cfg.get('default_hooks') or {})
    _check_best_score(cfg)
    load_from = cfg.get('load_from')
    if load_from is not None and not isinstance(load_from, str):
        raise InputError(f'load_from is the path of a checkpoint, got {load_from!r}')
    for name, flag in FLAGS.items():
        if cfg.get(name):
            raise InputError(f'{name}={cfg[name]!r} in a config has no effect: give {flag} on the command line')
    check_range(cfg)
    fetch_pretrained(cfg)


def check_testing(cfg: Config) -> None:
    """Refuse a config that cannot test.

    Raises:
        InputError: if a section is missing or a setting has an impossible value.
    """
    _require_sections(cfg, ('test_dataloader', 'test_evaluator'), 'test')
    if (cfg.get('test_cfg') or {}).get('fp16'):
        raise InputError(
            "test_cfg.fp16 has no effect under Lightning: leave it out, or test with MMDetection3D's own tool; "
            'tools/test.py --optimize bfloat16 computes in half precision here'
        )
    _check_dataloader(cfg, 'test')
    _check_evaluator(cfg, 'test')
    for metric in _evaluators(cfg, 'test'):
        for name, flag in DESTINATIONS.items():
            if metric.get(name):
                raise InputError(
                    f'test_evaluator.{name}={metric[name]!r} has no effect: give {flag} on the command line'
                )


def _require_sections(cfg: Config, sections: tuple[str, ...], purpose: str) -> None:
    missing = [key for key in sections if cfg.get(key) is None]
    if missing:
        raise InputError(f'config {cfg.filename} cannot {purpose}: it lacks {", ".join(missing)}')


def _check_dataloader(cfg: Config, part: str) -> None:
    loader = cfg[f'{part}_dataloader']
    if not isinstance(loader.get('dataset'), dict):
        raise InputError(f'{part}_dataloader.dataset is the config of a dataset, got {loader.get("dataset")!r}')
    _at_least_one(loader.get('batch_size', 1), f'{part}_dataloader.batch_size')
    for name in ('sampler', 'batch_sampler'):
        if loader.get(name) is not None and not isinstance(loader[name], dict):
            raise InputError(f'{part}_dataloader.{name} is the config of a sampler, got {loader[name]!r}')
    if part != 'train':
        for name in ('drop_last', 'num_batch_per_epoch'):
            if loader.get(name):
                raise InputError(
                    f'{part}_dataloader.{name}={loader[name]!r} leaves frames out, and scores are of all: leave it out'
                )
    workers = loader.get('num_workers', 0)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise InputError(f'{part}_dataloader.num_workers is a whole number from 0, got {workers!r}')
    if workers == 0 and loader.get('persistent_workers'):
        raise InputError(
            f'{part}_dataloader.num_workers=0 leaves no workers to keep: set '
            f'{part}_dataloader.persistent_workers=False as well'
        )


def _check_evaluator(cfg: Config, part: str) -> None:
    for metric in _evaluators(cfg, part):
        if not isinstance(metric, dict) or 'type' not in metric:
            raise InputError(
                f'{part}_evaluator is the config of a metric or a list of such, with a type, got {metric!r}'
            )


def _refuse_unscored_validation(cfg: Config) -> None:
    """Refuse a validation that only writes what was predicted, since checkpoints are chosen by its score."""
    for metric in _evaluators(cfg, 'val'):
        if metric.get('format_only'):
            raise InputError(
                f'val_evaluator.format_only={metric["format_only"]!r} leaves a validation without the score that the '
                'best checkpoint is kept by: leave it out, tools/test.py --format-only writes without scoring'
            )


def _check_optimization(cfg: Config) -> None:
    """Refuse settings of the optimizer that both engines would stumble over in or after the first step."""
    wrapper = cfg.optim_wrapper
    optimizer = wrapper.get('optimizer')
    if not isinstance(optimizer, dict) or not isinstance(optimizer.get('type'), str):
        raise InputError(f'optim_wrapper.optimizer is the config of an optimizer with a type, got {optimizer!r}')
    rate = optimizer.get('lr')
    if isinstance(rate, bool) or not isinstance(rate, int | float) or rate <= 0:
        raise InputError(f'optim_wrapper.optimizer.lr is a positive number, got {rate!r}')
    _at_least_one(wrapper.get('accumulative_counts', 1), 'optim_wrapper.accumulative_counts')
    clip_grad = wrapper.get('clip_grad')
    if clip_grad:
        _check_clipping(clip_grad)
    averages_weights(cfg)


def _check_clipping(clip_grad: object) -> None:
    """Refuse what ``torch.nn.utils.clip_grad_norm_`` does not take, which is called in the first step only."""
    taken = [name for name in inspect.signature(clip_grad_norm_).parameters if name != 'parameters']
    if not isinstance(clip_grad, dict):
        raise InputError(f'optim_wrapper.clip_grad is a dict of {", ".join(taken)}, or None, got {clip_grad!r}')
    unknown = sorted(clip_grad.keys() - set(taken))
    if unknown:
        raise InputError(
            f'optim_wrapper.clip_grad.{unknown[0]} is not known: gradients are clipped by {", ".join(taken)}'
        )
    limit = clip_grad.get('max_norm')
    if isinstance(limit, bool) or not isinstance(limit, int | float) or limit <= 0:
        raise InputError(f'optim_wrapper.clip_grad.max_norm is a positive number, got {limit!r}')


def _check_intervals(hooks: dict) -> None:
    """Refuse intervals of logs and checkpoints that are no numbers."""
    _at_least_one((hooks.get('logger') or {}).get('interval', 1), 'default_hooks.logger.interval')
    checkpoint = hooks.get('checkpoint') or {}
    interval, by_epoch = checkpoint.get('interval', 1), checkpoint.get('by_epoch', True)
    if isinstance(interval, bool) or not isinstance(interval, int):
        raise InputError(f'default_hooks.checkpoint.interval is a whole number, got {interval!r}')
    if not isinstance(by_epoch, bool):
        raise InputError(f'default_hooks.checkpoint.by_epoch is True or False, got {by_epoch!r}')


def best_score(cfg: Config) -> str:
    """Return the name of the score whose best checkpoint is kept, ``default_hooks.checkpoint.save_best``."""
    return ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('save_best', DETECTION_SCORE)


def _check_best_score(cfg: Config) -> None:
    """Refuse a score to keep the best checkpoint by that no evaluator of the validation gives, or its worst value."""
    wanted = best_score(cfg)
    kinds = {METRICS.get(metric['type']): metric for metric in _evaluators(cfg, 'val')}
    if not kinds.keys() <= {NuScenesDevkitMetric, MapMetric}:
        return
    known, scores, errors = [], set(), set()
    if NuScenesDevkitMetric in kinds:
        known.append(DETECTION_SCORE)
        scores |= {DETECTION_SCORE, 'nuscenes/mAP', *(f'nuscenes/AP/{name}' for name in DETECTION_NAMES)}
        errors = {f'nuscenes/{name}' for name in MEAN_ERRORS}
    if MapMetric in kinds:
        protocol = find_protocol(kinds[MapMetric].get('protocol'))
        known.append(f'map/{protocol.name}/mIoU@0.5')
        names = MapCounts.total(protocol, []).values()
        scores |= {f'map/{protocol.name}/{name}' for name in names if not name.endswith('/threshold')}
    if wanted not in scores | errors:
        raise InputError(
            f'default_hooks.checkpoint.save_best={wanted!r} is no score of val_evaluator: take {" or ".join(known)}'
        )
    rule = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('rule', 'greater')
    better = 'less' if wanted in errors else 'greater'
    if rule != better:
        raise InputError(
            f'default_hooks.checkpoint would keep the worst checkpoint: its rule is {rule!r}, and {wanted} is better '
            f"the {better} it is; take save_best={known[0]!r} with rule='greater'"
        )


def _evaluators(cfg: Config, part: str) -> list[dict]:
    """List the configs of the metrics of 'val' or 'test'."""
    metrics = cfg[f'{part}_evaluator']
    return list(metrics) if isinstance(metrics, list | tuple) else [metrics]


def _check_loop(loop: dict) -> None:
    """Refuse unknown settings of the training loop, and numbers of epochs that are impossible."""
    unknown = sorted(set(loop) - set(LOOP_SETTINGS))
    if unknown:
        raise InputError(
            f'train_cfg.{unknown[0]}={loop[unknown[0]]!r} has no effect: {", ".join(LOOP_SETTINGS)} are known'
        )
    if 'max_epochs' not in loop:
        raise InputError('train_cfg has no max_epochs: set train_cfg.max_epochs')
    for name in ('max_epochs', 'val_interval', 'val_begin'):
        _at_least_one(loop.get(name, 1), f'train_cfg.{name}')


def _at_least_one(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f'{name} is a whole number from 1, got {value!r}')


def check_range(cfg: Config) -> None:
    """Refuse training objects of another range than the model's, since it can never detect those outside its grid.

    Raises:
        InputError: if the ranges differ, also those of transforms, or the dataset has none and therefore keeps all
            objects.
    """
    wanted = cfg.model.get('point_cloud_range')
    for dataset in _temporal_datasets(cfg.train_dataloader.dataset):
        given = dataset.get('point_cloud_range')
        if wanted is not None and _as_tuple(given) != _as_tuple(wanted):
            raise InputError(
                f'model.point_cloud_range is {_as_tuple(wanted)} and that of train_dataloader.dataset '
                f'{_as_tuple(given)}: set both alike, in a config from one variable point_cloud_range'
            )
        for number, step in enumerate(dataset.get('pipeline') or []):
            of_step = step.get('point_cloud_range') if isinstance(step, dict) else None
            if of_step is not None and _as_tuple(of_step) != _as_tuple(given):
                raise InputError(
                    f'train_dataloader.dataset.point_cloud_range is {_as_tuple(given)}, that of pipeline.{number}, '
                    f'{step.get("type")}, {_as_tuple(of_step)}: set both alike'
                )


def _as_tuple(value: object) -> object:
    """Turn a list into a tuple, since configs and command lines write either."""
    return tuple(value) if isinstance(value, list) else value


def _temporal_datasets(dataset: dict) -> list[dict]:
    """Find the configs of multi-camera datasets within a dataset, which may repeat or join others."""
    if dataset.get('type') == 'NuScenesTemporalDataset':
        return [dataset]
    inner = [*(dataset.get('datasets') or []), dataset.get('dataset')]
    return [found for part in inner if isinstance(part, dict) for found in _temporal_datasets(part)]


def direct_results(cfg: Config, results_path: str | None, format_only: bool, maps_dir: str | None = None) -> None:
    """Set in the config where test evaluators write submission and maps, and whether they are scored.

    Maps that are not scored need no true ones, which are then not drawn; nor are they predicted for nothing where no
    folder is given for them.

    Raises:
        InputError: if no test evaluator of the config writes submissions, or maps where a folder is given for them.
    """
    evaluators = _evaluators(cfg, 'test')
    of_maps = [metric for metric in evaluators if METRICS.get(metric['type']) is MapMetric]
    for metric in of_maps:
        metric.update(out_dir=maps_dir, format_only=format_only)
    if format_only:
        _leave_true_maps_out(cfg)
    if maps_dir and not of_maps:
        kinds = ', '.join(metric['type'] for metric in evaluators)
        raise InputError(f'--maps-out is for test_evaluator.type=MapMetric, it is {kinds}')
    writing = [metric for metric in evaluators if METRICS.get(metric['type']) is NuScenesDevkitMetric]
    for metric in writing:
        metric.update(results_path=results_path, format_only=format_only)
    if not writing and (results_path or (format_only and not of_maps)):
        kinds = ', '.join(metric['type'] for metric in evaluators)
        raise InputError(f'--out and --format-only are for test_evaluator.type=NuScenesDevkitMetric, it is {kinds}')
    if format_only and not maps_dir and writing and of_maps:
        cfg.test_evaluator = [metric for metric in evaluators if metric not in of_maps]


def drop_replaced_maps(cfg: Config) -> None:
    """Delete the maps of an earlier test where this one writes its own, since those of two tests would be mixed."""
    for metric in _evaluators(cfg, 'test'):
        if METRICS.get(metric['type']) is MapMetric and metric.get('out_dir'):
            drop_maps(metric['out_dir'])


def _leave_true_maps_out(cfg: Config) -> None:
    """Let the test dataset draw no maps, which takes the map expansion and annotations."""
    dataset = cfg.test_dataloader.dataset
    if dataset.get('map_protocol') is not None:
        pipeline = [step for step in dataset.get('pipeline') or [] if step.get('type') != 'LoadMapLabels']
        dataset.update(map_protocol=None, pipeline=pipeline)


def check_evaluation(cfg: Config, part: str, dataset: DescribedDataset) -> None:
    """Refuse an evaluator that cannot be built or could not score the dataset.

    Args:
        cfg: the config.
        part: 'val' or 'test', the evaluator's part of the config.
        dataset: the dataset that it has to score.

    Raises:
        FileNotFoundError: if files of the evaluator are missing.
        InputError: if a setting of the evaluator is wrong, or it expects other samples or classes.
    """
    with building(f'{part}_evaluator'):
        evaluator = Evaluator(cfg[f'{part}_evaluator'])
    for metric in evaluator.metrics:
        if isinstance(metric, NuScenesDevkitMetric | MapMetric):
            metric.check_dataset(dataset)
        if isinstance(metric, MapMetric):
            _compare_with_heads(cfg.model, metric.protocol.name, part)


def _compare_with_heads(model: dict, protocol: str, part: str) -> None:
    """Refuse an evaluator of maps by another protocol than that of the model's maps."""
    heads = (model.get('heads') or {}).values()
    predicted = [head['protocol'] for head in heads if head and 'protocol' in head]
    if protocol not in predicted:
        found = f'predicts maps by {predicted[0]!r}' if predicted else 'predicts no maps'
        raise InputError(
            f'{part}_evaluator takes maps by protocol {protocol!r}, but the model {found}: give head, dataset and '
            'evaluator the same protocol, in a config from one variable map_protocol'
        )
