"""The official nuScenes detection metric, on a whole split or on the samples that info files cover."""

import json
from functools import lru_cache
from pathlib import Path

from nuscenes import NuScenes
from nuscenes.eval.common.loaders import (
    add_center_dist,
    filter_eval_boxes,
    load_gt_of_sample_tokens,
    load_prediction_of_sample_tokens,
)
from nuscenes.eval.detection.config import config_factory
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.utils.splits import create_splits_scenes

from bevformer_plugin.datasets.infos import load_infos, require_matching

from .results import load_results

DEFAULT_SPLITS = {'v1.0-mini': 'mini_val', 'v1.0-trainval': 'val', 'v1.0-test': 'test'}


class PartialDetectionEval(DetectionEval):
    """The devkit's evaluation on chosen samples of a split instead of all of it."""

    def __init__(self, nusc: NuScenes, result_path: str, sample_tokens: list[str], output_dir: str) -> None:
        self.nusc, self.result_path, self.output_dir, self.verbose = nusc, result_path, output_dir, False
        self.plot_dir = str(Path(output_dir, 'plots'))
        self.cfg = config_factory('detection_cvpr_2019')
        predictions, self.meta = load_prediction_of_sample_tokens(
            result_path, self.cfg.max_boxes_per_sample, DetectionBox, sample_tokens=sample_tokens
        )
        truth = load_gt_of_sample_tokens(nusc, sample_tokens, DetectionBox)
        self.pred_boxes, self.gt_boxes = (
            filter_eval_boxes(nusc, add_center_dist(nusc, boxes), self.cfg.class_range)
            for boxes in (predictions, truth)
        )
        self.sample_tokens = self.gt_boxes.sample_tokens


@lru_cache(maxsize=1)
def open_nuscenes(root: str, version: str) -> NuScenes:
    """The devkit's tables, loaded once.

    Raises:
        FileNotFoundError: if the folder or the version is not there.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise FileNotFoundError(f'dataroot {root} is not a folder')
    if not (folder / version).is_dir():
        present = sorted(path.name for path in folder.glob('v1.0-*'))
        raise FileNotFoundError(f'{root} has no version {version}; it has {present or "none"}')
    return NuScenes(version=version, dataroot=root, verbose=False)


def split_tokens(nusc: NuScenes, split: str) -> list[str]:
    """Sample tokens of a devkit split that are in the tables."""
    scenes = set(create_splits_scenes()[split])
    names = {scene['token']: scene['name'] for scene in nusc.scene}
    return [sample['token'] for sample in nusc.sample if names[sample['scene_token']] in scenes]


def evaluate_results(
    results_path: str,
    root: str,
    version: str,
    split: str | None = None,
    infos: str | None = None,
    out_dir: str | None = None,
) -> dict:
    """Score a submission.

    Args:
        results_path: submission JSON.
        root: nuScenes dataroot.
        version: e.g. v1.0-trainval.
        split: devkit split; by default the version's validation (or test) split.
        infos: info file; if it covers part of the split, its samples are scored.
        out_dir: where ``metrics_summary.json`` and ``metrics_details.json`` go; the results' folder by default.

    Returns:
        The devkit's metrics summary, and ``num_samples``, ``num_split_samples`` and ``classes_present``.

    Raises:
        FileNotFoundError: if something is missing.
        ValueError: if results, infos, split and version do not match.
    """
    nusc = open_nuscenes(str(root), version)
    split = DEFAULT_SPLITS.get(version) if split is None else split
    if split not in create_splits_scenes():
        raise ValueError(f'unknown split {split!r}; the devkit has {", ".join(sorted(create_splits_scenes()))}')
    in_split = split_tokens(nusc, split)
    if not in_split:
        raise ValueError(f'{version} at {root} has no samples of split {split}; name another with --split')
    tokens = in_split
    if infos is not None:
        content = load_infos(infos, root=root)
        require_matching(content['metainfo'], version=version, split=split)
        covered = {entry['token'] for entry in content['data_list']}
        tokens = [token for token in in_split if token in covered]
        if not tokens:
            raise ValueError(f'{infos} has no sample of split {split} of {version}')
    _require_same_samples(set(load_results(results_path)), set(tokens), results_path, split)

    out_dir = str(Path(results_path).parent if out_dir is None else out_dir)
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    if len(tokens) == len(in_split):
        evaluation = DetectionEval(
            nusc, config_factory('detection_cvpr_2019'), str(results_path), split, out_dir, verbose=False
        )
    else:
        evaluation = PartialDetectionEval(nusc, str(results_path), tokens, out_dir)
    metrics, details = evaluation.evaluate()
    present = {box.detection_name for boxes in evaluation.gt_boxes.boxes.values() for box in boxes}
    summary = {
        **metrics.serialize(),
        'meta': evaluation.meta,
        'num_samples': len(tokens),
        'num_split_samples': len(in_split),
        'classes_present': sorted(present),
    }
    Path(out_dir, 'metrics_summary.json').write_text(json.dumps(summary, indent=2))
    Path(out_dir, 'metrics_details.json').write_text(json.dumps(details.serialize(), indent=2))
    return summary


def _require_same_samples(given: set[str], expected: set[str], path: str, split: str) -> None:
    missing, extra = sorted(expected - given), sorted(given - expected)
    if not missing and not extra:
        return
    parts = []
    if missing:
        parts.append(f'{len(missing)} of {len(expected)} samples are missing (first: {missing[0]})')
    if extra:
        parts.append(f'{len(extra)} samples do not belong (first: {extra[0]})')
    raise ValueError(
        f'{path} does not match split {split}: '
        + ' and '.join(parts)
        + '. Check version and split; with --infos the samples of an info file are scored'
    )
