"""The official nuScenes detection metric, on a whole split or on the samples that info files cover."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nuscenes import NuScenes
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import load_prediction_of_sample_tokens
from nuscenes.eval.detection.config import config_factory
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.splits import create_splits_scenes

from bevformer_plugin.datasets.infos import (
    check_rule,
    check_tables,
    default_split,
    find_splits,
    has_annotations,
    is_official,
    load_infos,
    open_tables,
    refuse_tables_that_do_not_fit,
    require_matching,
    role_of,
)
from bevformer_plugin.errors import InputError

from .devkit_boxes import boxes_within_range, load_truth, require_true_boxes
from .results import load_results

SCORES = ('metrics_summary.json', 'metrics_details.json')  # files that an evaluation writes


class SampleDetectionEval(DetectionEval):
    """The devkit's evaluation of the samples of a submission, extended to cases in which the devkit fails.

    A submission may be without boxes, tables may lack LIDAR_TOP, in which case the pose is that of
    :func:`reference_record`, and other rules than 'points' may decide which true boxes count. In all other cases the
    numbers are the devkit's, to the digit.

    Beside the devkit's ``gt_boxes`` and ``pred_boxes`` it keeps ``left_out_truth`` and ``left_out_predictions``, lists
    of the boxes that the range of their class or a bicycle rack leaves out, and ``annotation_of``, the row of each
    true box by the box's ``id``.

    Args:
        nusc: tables with the samples and their annotations.
        result_path: the submission.
        sample_tokens: the samples to score, all of which the submission has.
        output_dir: folder for the metrics.
        true_boxes: rule of :func:`counted_boxes`.

    Raises:
        InputError: an annotation is broken, or no true box counts.
    """

    def __init__(
        self, nusc: NuScenes, result_path: str, sample_tokens: list[str], output_dir: str, true_boxes: str
    ) -> None:
        self.nusc, self.result_path, self.output_dir, self.verbose = nusc, result_path, output_dir, False
        self.plot_dir = str(Path(output_dir, 'plots'))
        self.cfg = config_factory('detection_cvpr_2019')
        truth, rows = load_truth(nusc, sample_tokens, DetectionBox, category_to_detection_name, true_boxes)
        predictions, self.meta = load_prediction_of_sample_tokens(
            result_path, self.cfg.max_boxes_per_sample, DetectionBox, sample_tokens=sample_tokens
        )
        self.annotation_of = {
            id(box): row for token, its in rows.items() for box, row in zip(truth[token], its, strict=True)
        }
        self.pred_boxes, self.left_out_predictions = self._within_range(predictions)
        self.gt_boxes, self.left_out_truth = self._within_range(truth)
        self.sample_tokens = self.gt_boxes.sample_tokens
        require_true_boxes(self.gt_boxes, true_boxes)

    def _within_range(self, boxes: EvalBoxes) -> tuple[EvalBoxes, list[DetectionBox]]:
        """Return the boxes that the devkit's filters keep, and those that they leave out although they have points."""
        every = boxes.all
        kept = boxes_within_range(self.nusc, boxes, self.cfg.class_range)
        inside = {id(box) for box in kept.all}
        return kept, [box for box in every if id(box) not in inside and box.num_pts != 0]


@dataclass(frozen=True)
class ScoredSamples:
    """The samples that submissions are scored on, in tables that are open.

    Attributes:
        nusc: the tables.
        split: name of the split that the samples are of.
        tokens: of the samples, in the order of the split.
        num_split_samples: how many samples the whole split has.
    """

    nusc: NuScenes
    split: str
    tokens: list[str]
    num_split_samples: int


def find_scored_samples(
    submissions: Mapping[str, Iterable[str]],
    root: str,
    version: str,
    split: str | None = None,
    infos: str | None = None,
) -> ScoredSamples:
    """Find the samples that submissions must have, and refuse one that has others.

    Args:
        submissions: file -> tokens of the samples that it has.
        root: as of :func:`evaluate_results`, like all that follow.
        version: nuScenes version.
        split: name of a split.
        infos: info file.

    Raises:
        FileNotFoundError: a file or folder is missing.
        InputError: results, infos, split and version do not match, or the tables are broken or hold no annotations.
    """
    given = {path: set(tokens) for path, tokens in submissions.items()}
    check_tables(root, version)
    refuse_without_annotations(root, version)
    metainfo, in_infos = None, None
    if infos is not None:
        content = load_infos(infos, root=root)
        metainfo, in_infos = content['metainfo'], {entry['token'] for entry in content['data_list']}
        for path, its in given.items():
            _refuse_other_samples(its, in_infos, path, infos)
    split = split_to_evaluate(split, version, root, metainfo)
    nusc = open_tables(root, version)
    in_split = _split_tokens(nusc, scenes_of(split, version, root, metainfo))
    if not in_split:
        raise InputError(f'{version} at {root} has no samples of split {split}; name another with --split')
    tokens = in_split if in_infos is None else [token for token in in_split if token in in_infos]
    if not tokens:
        raise InputError(f'{infos} has no sample of split {split} of {version}')
    for path, its in given.items():
        _require_same_samples(its, set(tokens), path, split)
    return ScoredSamples(nusc, split, tokens, len(in_split))


def evaluate_results(
    results_path: str,
    root: str,
    version: str,
    split: str | None = None,
    infos: str | None = None,
    out_dir: str | None = None,
    true_boxes: str = 'points',
    classes_detected: list[str] | None = None,
) -> dict:
    """Score a submission by the devkit's metric, and write the scores to files.

    Args:
        results_path: the submission, a JSON file; it scores NDS 0 if it holds no box at all.
        root: nuScenes dataroot.
        version: nuScenes version, such as v1.0-trainval.
        split: name of a split of the devkit, of ``root/version/splits.json``, or of the infos. By default it is the
            split of the infos unless that is for training, else the version's split for validation (or testing).
        infos: info file; if it covers a part of the split, the samples of that part are scored.
        out_dir: folder for ``metrics_summary.json`` and ``metrics_details.json``, by default that of the results.
        true_boxes: which annotated objects count, see :func:`counted_boxes`; official scores are those of 'points'.
        classes_detected: classes that the model detects, None if not known; the devkit scores all ten classes.

    Returns:
        The devkit's metrics summary, and ``true_boxes``, ``num_samples``, ``num_split_samples``, ``num_predictions``
        (within range), ``classes_present`` and ``classes_detected``.

    Raises:
        FileNotFoundError: a file or folder is missing.
        InputError: results, infos, split and version do not match, results or tables are broken, the tables hold no
            annotations, or no true box counts.
    """
    check_rule(true_boxes)
    results = load_results(results_path)
    scored = find_scored_samples({results_path: results}, root, version, split, infos)
    out_dir = str(Path(results_path).parent if out_dir is None else out_dir)
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    with refuse_tables_that_do_not_fit(scored.nusc, f'split {scored.split}'):
        evaluation = SampleDetectionEval(scored.nusc, str(results_path), list(results), out_dir, true_boxes)
    metrics, details = evaluation.evaluate()
    present = {box.detection_name for boxes in evaluation.gt_boxes.boxes.values() for box in boxes}
    summary = {
        **metrics.serialize(),
        'meta': evaluation.meta,
        'true_boxes': true_boxes,
        'num_samples': len(results),
        'num_split_samples': scored.num_split_samples,
        'num_predictions': len(evaluation.pred_boxes.all),
        'classes_present': sorted(present),
        'classes_detected': None if classes_detected is None else sorted(classes_detected),
    }
    for name, content in zip(SCORES, (summary, details.serialize()), strict=True):
        Path(out_dir, name).write_text(json.dumps(content, indent=2))
    return summary


def refuse_without_annotations(root: str | Path, version: str) -> None:
    """Refuse to score against tables without annotations.

    Raises:
        InputError: the tables hold none.
    """
    if not has_annotations(root, version):
        raise InputError(
            f'{version} at {root} has no annotations to score against, as the test split of nuScenes: write the '
            "submission with tools/test.py --format-only and hand it in on nuScenes' server"
        )


def split_to_evaluate(split: str | None, version: str, root: str | Path, metainfo: dict | None) -> str:
    """Choose the split to score, and refuse infos of another one.

    Args:
        split: name of the split if one is given.
        version: nuScenes version.
        root: nuScenes dataroot.
        metainfo: ``metainfo`` of the infos if there are any.

    Returns:
        Name of the split.

    Raises:
        InputError: the infos are of another version or split, or no split can be found.
    """
    of_infos = None if metainfo is None else metainfo['split']
    if split is None and of_infos is not None and role_of(of_infos) != 'train':
        split = of_infos
    if split is None:
        split = default_split(find_splits(root, version).roles)
        if split is None:
            raise InputError(f'{version} at {root} has no split for validation or test: name one with --split')
    if metainfo is not None:
        require_matching(metainfo, version=version, split=split)
    return split


def scenes_of(split: str, version: str, root: str | Path, metainfo: dict | None) -> list[str]:
    """Return the names of the scenes of a split.

    They are nuScenes' own, else those in the ``metainfo`` of infos of that split, else those in
    ``root/version/splits.json``.

    Raises:
        InputError: there is no such split.
    """
    if is_official(split, version):
        return create_splits_scenes()[split]
    if metainfo is not None and metainfo['split'] == split:
        return metainfo['scenes']
    splits = find_splits(root, version)
    if split not in splits.scenes:
        names = sorted({*splits.scenes, *(name for name in create_splits_scenes() if is_official(name, version))})
        raise InputError(f'unknown split {split!r}; {version} has {", ".join(names)}')
    return splits.scenes[split]


def _split_tokens(nusc: NuScenes, scenes: list[str]) -> list[str]:
    """Return the tokens of all samples in the tables whose scenes have one of the names."""
    with refuse_tables_that_do_not_fit(nusc, 'all scenes'):
        chosen = {scene['token'] for scene in nusc.scene if scene['name'] in set(scenes)}
        return [sample['token'] for sample in nusc.sample if sample['scene_token'] in chosen]


def _refuse_other_samples(given: set[str], in_infos: set[str], results_path: str, infos: str) -> None:
    """Refuse results and infos that have no sample in common; to compare their splits would mislead."""
    if given and given.isdisjoint(in_infos):
        raise InputError(
            f'{results_path} and {infos} hold other samples: none of the {len(given)} of the results is among the '
            f'{len(in_infos)} of the infos (first: {min(given)} and {min(in_infos)}): give the infos that the results '
            'were made on'
        )


def _require_same_samples(given: set[str], expected: set[str], path: str, split: str) -> None:
    """Refuse results that have other samples than expected."""
    missing, extra = sorted(expected - given), sorted(given - expected)
    if not missing and not extra:
        return
    parts = []
    if missing:
        parts.append(f'{len(missing)} of {len(expected)} samples are missing (first: {missing[0]})')
    if extra:
        parts.append(f'{len(extra)} samples do not belong (first: {extra[0]})')
    raise InputError(
        f'{path} does not match split {split}: '
        + ' and '.join(parts)
        + '. Check version and split; with --infos the samples of an info file are scored'
    )
