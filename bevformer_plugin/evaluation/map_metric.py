"""IoU of maps in bird's-eye view as an MMEngine metric."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from mmdet3d.registry import METRICS
from mmengine.dist import broadcast_object_list, gather_object
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from bevformer_plugin.datasets.described import DescribedDataset
from bevformer_plugin.datasets.setting_types import check_path, check_switch
from bevformer_plugin.errors import InputError
from bevformer_plugin.maps import MapProtocol, find_protocol

from .map_counts import MapCounts

SUMMARY = 'map_summary.json'
PROBABILITIES = 'probabilities'  # folder of predicted maps beside the summary
LEVELS = 255  # of a probability in a picture


@METRICS.register_module()
class MapMetric(BaseMetric):
    """Counts intersections and unions of predicted and true maps, ``pred_map`` and ``gt_map`` of data samples.

    Counts are whole numbers that are merged by sample token, so the scores do not depend on the number of processes; a
    process may have no samples. Scores are named ``map/<protocol>/<class>@<threshold>``.

    Args:
        protocol: name of the protocol, which is the one of the dataset and of the model.
        out_dir: folder for ``map_summary.json`` and the predicted maps, see :func:`write_map`; None keeps neither.
        format_only: write the predicted maps and do not score them, for which no true ones are needed.

    Raises:
        InputError: there is no such protocol, ``out_dir`` is no path, or ``format_only`` is no bool or without it.
    """

    default_prefix = 'map'

    def __init__(self, protocol: str, out_dir: str | None = None, format_only: bool = False) -> None:
        super().__init__()
        self.protocol = find_protocol(protocol)
        if out_dir is not None:
            check_path('out_dir', out_dir)
        check_switch('format_only', format_only)
        if format_only and out_dir is None:
            raise InputError('format_only needs out_dir: nothing else is left of the maps')
        self.out_dir = out_dir
        self.format_only = format_only

    def check_dataset(self, dataset: DescribedDataset) -> None:
        """Refuse a dataset whose maps could not be scored, before hours are spent on them.

        Raises:
            InputError: the dataset draws no maps, or by another protocol.
        """
        given = dataset.metainfo.get('map_protocol')
        if given is None and self.format_only:
            return
        if given != self.protocol.name:
            found = 'draws no maps' if given is None else f'draws maps by {given!r}'
            raise InputError(
                f'the evaluator scores maps by protocol {self.protocol.name!r}, but the dataset {found}: set '
                f"map_protocol={self.protocol.name!r} of the dataset, with dict(type='LoadMapLabels') in its pipeline"
            )

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the cells of a batch's maps, and write the predicted ones."""
        needed = {'pred_map': 'give the model a MapHead'}
        if not self.format_only:
            needed['gt_map'] = "put 'LoadMapLabels' in front"
        for sample in data_samples:
            token = sample['sample_idx']
            for key, remedy in needed.items():
                if key not in sample:
                    raise InputError(f'sample {token} has no {key} to score maps with: {remedy}')
            probabilities = _array(sample['pred_map']['data'])
            if not self.format_only:
                labels = _array(sample['gt_map']['data'])
                self.results.append((token, MapCounts.of_sample(self.protocol, probabilities, labels)))
            if self.out_dir is not None:
                write_map(Path(self.out_dir), self.protocol, token, probabilities)

    def evaluate(self, size: int) -> dict[str, float]:
        """Merge the counts of all processes and score them; all processes return the same numbers."""
        if self.format_only:
            print_log(f'predicted maps written to {self.out_dir}', logger='current')
            return {}
        shards = gather_object(self.results)  # None on all processes but the main one
        self.results = []
        outcomes: list[dict[str, float]] = [{} if shards is None else self._score(shards)]
        broadcast_object_list(outcomes)
        return {f'{self.prefix}/{self.protocol.name}/{key}': value for key, value in outcomes[0].items()}

    def _score(self, shards: list[list[tuple[str, MapCounts]]]) -> dict[str, float]:
        merged = dict(entry for shard in shards for entry in shard)
        return self.compute_metrics(merged)

    def compute_metrics(self, results: dict[str, MapCounts]) -> dict[str, float]:
        """Add the counts of all samples, given by token, and print and return the scores."""
        counts = MapCounts.total(self.protocol, results.values())
        print_log('\n' + counts.table(), logger='current')
        if self.out_dir is not None:
            counts.write(Path(self.out_dir, SUMMARY))
        return counts.values()


def write_map(folder: Path, protocol: MapProtocol, token: str, probabilities: np.ndarray) -> Path:
    """Write a predicted map as a grey PNG: the classes one below the other, 255 for a probability of 1, row 0 first.

    ``protocol.json`` beside the pictures names protocol and classes, and says where the cells lie: whose frame it is,
    and the extent (x_min, y_min, x_max, y_max) in metres.

    Returns:
        Path of the picture.
    """
    pictures = folder / PROBABILITIES
    pictures.mkdir(parents=True, exist_ok=True)
    stacked = np.round(probabilities.reshape(-1, probabilities.shape[-1]) * LEVELS).astype(np.uint8)
    _, data = cv2.imencode('.png', stacked)
    path = _picture(folder, token)
    path.write_bytes(data.tobytes())
    x_min, y_min, _, x_max, y_max, _ = protocol.grid.point_cloud_range
    description = {
        'protocol': protocol.name,
        'classes': list(protocol.class_names),
        'frame': protocol.frame,
        'extent': [x_min, y_min, x_max, y_max],
    }
    (pictures / 'protocol.json').write_text(json.dumps(description))
    return path


def drop_maps(folder: str | Path) -> None:
    """Delete the predicted maps in a folder and their scores, since those of another test take their place."""
    Path(folder, SUMMARY).unlink(missing_ok=True)
    for path in (*Path(folder, PROBABILITIES).glob('*.png'), Path(folder, PROBABILITIES, 'protocol.json')):
        path.unlink(missing_ok=True)


def read_map_protocol(folder: str | Path) -> MapProtocol:
    """Return the protocol of the predicted maps in the folder of :class:`MapMetric`.

    Raises:
        FileNotFoundError: it holds no predicted maps.
        InputError: it does not say by which protocol they are, or the protocol has other classes today.
    """
    path = Path(folder, PROBABILITIES, 'protocol.json')
    if not path.is_file():
        raise FileNotFoundError(f'no predicted maps in {folder}: tools/test.py --maps-out writes them')
    try:
        description = json.loads(path.read_text())
        protocol, classes = find_protocol(description['protocol']), description['classes']
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path} does not say which maps lie beside it ({error})') from error
    if classes != list(protocol.class_names):
        raise InputError(f'{path} has the classes {classes}, protocol {protocol.name!r} {list(protocol.class_names)}')
    return protocol


def missing_maps(folder: str | Path, tokens: Iterable[str]) -> list[str]:
    """List the samples of which a folder of :func:`write_map` holds no map."""
    return [token for token in tokens if not _picture(folder, token).is_file()]


def _picture(folder: str | Path, token: str) -> Path:
    return Path(folder, PROBABILITIES, f'{token}.png')


def read_map(folder: str | Path, protocol: MapProtocol, token: str) -> np.ndarray:
    """Read a predicted map, (classes, rows, columns) float32 probabilities in steps of 1 / 255.

    Raises:
        FileNotFoundError: there is none of this sample.
        InputError: the picture is damaged or of another size.
    """
    path = _picture(folder, token)
    if not path.is_file():
        raise FileNotFoundError(f'no predicted map {path}: give the folder of a test on these infos')
    stacked = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    grid = protocol.grid
    if stacked is None or stacked.shape != (len(protocol.classes) * grid.bev_h, grid.bev_w):
        raise InputError(
            f'{path} is no map by protocol {protocol.name!r}: make it again with tools/test.py --maps-out'
        )
    return stacked.reshape(-1, grid.bev_h, grid.bev_w).astype(np.float32) / LEVELS


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
