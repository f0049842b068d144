"""Cells of a map that prediction and truth share, as whole numbers that add over samples and processes."""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bevformer_plugin.atomic_write import atomic_write
from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.maps import IGNORED, MapProtocol

HEADLINE = 0.5  # the threshold of the scores that come first, whatever the protocol's own
RINGS = (0.0, 20.0, 40.0, np.inf)  # metres from the origin of the grid's frame
BEST_OF = (0.35, 0.65)  # thresholds among which a protocol without one of its own chooses


@dataclass(frozen=True)
class MapCounts:
    """Intersections and unions of some samples.

    Attributes:
        protocol: by which predictions were scored.
        samples: how many.
        intersections, unions: (classes, thresholds, rings) int64 cells.
    """

    protocol: MapProtocol
    samples: int
    intersections: np.ndarray
    unions: np.ndarray

    @classmethod
    def of_sample(cls, protocol: MapProtocol, probabilities: np.ndarray, labels: np.ndarray) -> 'MapCounts':
        """Count the cells of a sample; a cell is predicted where its probability is above the threshold.

        Args:
            protocol: its thresholds and grid.
            probabilities: (classes, rows, columns) from 0 to 1.
            labels: (classes, rows, columns) of 0, 1 and ``IGNORED``; cells of the last count nowhere.

        Raises:
            InputError: the arrays are of another shape than the protocol's, or probabilities are not from 0 to 1.
        """
        shape = (len(protocol.classes), protocol.grid.bev_h, protocol.grid.bev_w)
        if probabilities.shape != shape or labels.shape != shape:
            raise InputError(
                f'a map by protocol {protocol.name!r} has shape {shape}, got {probabilities.shape} as prediction and '
                f'{labels.shape} as truth: give model, dataset and evaluator the same protocol'
            )
        if not (np.isfinite(probabilities).all() and probabilities.min() >= 0 and probabilities.max() <= 1):
            raise InputError('a predicted map holds values that are no probabilities, from 0 to 1')
        thresholds = np.array(protocol.thresholds, dtype=np.float32)
        rings, num_rings, num_bins = _rings(protocol.grid), len(RINGS) - 1, len(thresholds) + 1
        passed = np.searchsorted(thresholds, probabilities.astype(np.float32), side='left')  # thresholds below
        intersections, unions = [], []
        for of_class, truth in zip(passed, labels, strict=True):
            counted = truth != IGNORED
            place = (truth[counted] * num_rings + rings[counted]) * num_bins + of_class[counted]
            cells = np.bincount(place, minlength=2 * num_rings * num_bins).reshape(2, num_rings, num_bins)
            above = cells[..., ::-1].cumsum(axis=-1)[..., -2::-1]  # 2 x rings x thresholds
            intersections.append(above[1].T)
            unions.append((above[0] + cells[1].sum(axis=-1, keepdims=True)).T)
        return cls(protocol, 1, np.stack(intersections), np.stack(unions))

    @classmethod
    def total(cls, protocol: MapProtocol, parts: Iterable['MapCounts']) -> 'MapCounts':
        """Add the counts of any number of parts."""
        shape = (len(protocol.classes), len(protocol.thresholds), len(RINGS) - 1)
        samples, intersections, unions = 0, np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for part in parts:
            samples += part.samples
            intersections += part.intersections
            unions += part.unions
        return cls(protocol, samples, intersections, unions)

    def iou(self) -> np.ndarray:
        """Compute (classes, thresholds) intersection over union, NaN where there is neither truth nor prediction."""
        return _ratio(self.intersections.sum(axis=2), self.unions.sum(axis=2))

    def iou_of_rings(self, threshold: float) -> np.ndarray:
        """Compute (classes, rings) intersection over union at one of the protocol's thresholds."""
        index = self.protocol.thresholds.index(threshold)
        return _ratio(self.intersections[:, index], self.unions[:, index])

    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """Choose for each class the threshold with the best IoU on these very samples.

        A protocol without a threshold of its own chooses as its source does, any other among all.

        Returns:
            (classes,) IoU and (classes,) thresholds, NaN for classes without an IoU.
        """
        thresholds = np.array(self.protocol.thresholds)
        iou = self.iou()
        if self.protocol.threshold is None:
            iou = np.where((thresholds >= BEST_OF[0]) & (thresholds <= BEST_OF[1]), iou, np.nan)
        known = np.isfinite(iou)
        index = np.where(known, iou, -1.0).argmax(axis=1)
        exists = known.any(axis=1)
        rows = np.arange(len(iou))
        return np.where(exists, iou[rows, index], np.nan), np.where(exists, thresholds[index], np.nan)

    def values(self) -> dict[str, float]:
        """Return all scores by name: IoU of classes and their mean at thresholds, at the best one, and of rings."""
        thresholds, names = self.protocol.thresholds, self.protocol.class_names
        iou, (best, chosen) = self.iou(), self.best()
        values: dict[str, float] = {}
        for threshold in dict.fromkeys((HEADLINE, self.protocol.threshold or HEADLINE)):
            of_classes = iou[:, thresholds.index(threshold)]
            values[f'mIoU@{threshold:g}'] = _mean(of_classes)
            values |= {f'{name}@{threshold:g}': float(one) for name, one in zip(names, of_classes, strict=True)}
        values['mIoU@best'] = _mean(best)
        values |= {f'{name}@best': float(one) for name, one in zip(names, best, strict=True)}
        values |= {f'{name}@best/threshold': float(one) for name, one in zip(names, chosen, strict=True)}
        for name, of_rings in zip(names, self.iou_of_rings(HEADLINE), strict=True):
            for ring, one in zip(ring_names(), of_rings, strict=True):
                values[f'{name}@{HEADLINE:g}/{ring}'] = float(one)
        return values

    def table(self) -> str:
        """Write the scores as a table for people."""
        own = self.protocol.threshold
        columns = [HEADLINE] if own in (None, HEADLINE) else [HEADLINE, own]
        iou, (best, chosen) = self.iou(), self.best()
        of_rings = self.iou_of_rings(HEADLINE)
        head = ''.join(f'{f"@{threshold:g}":>8}' for threshold in columns)
        lines = [
            f"IoU of maps by protocol '{self.protocol.name}' over {self.samples} samples",
            f'{"class":<18}{head}{"best*":>8}{"  at":<8}'
            + ''.join(f'{f"{ring} @{HEADLINE:g}":>14}' for ring in ring_names()),
        ]
        indices = [self.protocol.thresholds.index(threshold) for threshold in columns]
        for row, name in enumerate(self.protocol.class_names):
            cells = ''.join(f'{_text(iou[row, index]):>8}' for index in indices)
            at = f'  {chosen[row]:.2f}' if np.isfinite(chosen[row]) else ''
            lines.append(
                f'{name:<18}{cells}{_text(best[row]):>8}{at:<8}'
                + ''.join(f'{_text(one):>14}' for one in of_rings[row])
            )
        means = ''.join(f'{_text(_mean(iou[:, index])):>8}' for index in indices)
        lines += [f'{"mean":<18}{means}{_text(_mean(best)):>8}', '* threshold chosen on the evaluated samples']
        return '\n'.join(lines)

    def write(self, path: str | Path) -> None:
        """Write scores and counts as JSON."""
        content = {
            'protocol': self.protocol.name,
            'samples': self.samples,
            'classes': list(self.protocol.class_names),
            'thresholds': list(self.protocol.thresholds),
            'rings': ring_names(),
            'intersections': self.intersections.tolist(),
            'unions': self.unions.tolist(),
            'scores': {name: None if np.isnan(value) else value for name, value in self.values().items()},
        }
        with atomic_write(path) as file:
            file.write(json.dumps(content).encode())


def ring_names() -> list[str]:
    """Name the rings of ``RINGS``."""
    return [f'{low:g}-{high:g}m' if np.isfinite(high) else f'{low:g}m+' for low, high in itertools.pairwise(RINGS)]


def _rings(grid: BEVGrid) -> np.ndarray:
    """Return in which ring the centre of each cell lies, (rows, columns)."""
    return np.searchsorted(RINGS[1:-1], np.hypot(*np.moveaxis(grid.cell_centers(), -1, 0)), side='right')


def _ratio(intersections: np.ndarray, unions: np.ndarray) -> np.ndarray:
    return np.divide(intersections, unions, out=np.full(unions.shape, np.nan), where=unions > 0)


def _mean(values: np.ndarray) -> float:
    """Return the mean of those that are not NaN; NaN if all are."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float('nan')


def _text(value: float) -> str:
    return '-' if np.isnan(value) else f'{value:.3f}'
