"""Boxes of a few lines, as a submission whose truth is known."""

import numpy as np
from nuscenes.eval.detection.constants import DETECTION_NAMES

from bevformer_plugin.evaluation import BoxTable, Keyframes, ScoredBoxes, TrueBoxTable

Row = tuple[int, str, float, float, float]  # keyframe, class, x, y, score


def box_table(rows: list[Row]) -> BoxTable:
    """Standing boxes of 2 x 4 x 1.5 m that look along x, one for each row; the vehicle is at the origin."""
    centres = np.array([[x, y, 0.0] for _, _, x, y, _ in rows]).reshape(-1, 3)
    return BoxTable(
        frames=np.array([row[0] for row in rows], dtype=int),
        labels=np.array([DETECTION_NAMES.index(row[1]) for row in rows], dtype=int),
        centres=centres,
        ego_distances=np.hypot(centres[:, 0], centres[:, 1]),
        sizes=np.tile([2.0, 4.0, 1.5], (len(rows), 1)),
        yaws=np.zeros(len(rows)),
        velocities=np.zeros((len(rows), 2)),
        attributes=np.full(len(rows), 'vehicle.parked'),
        scores=np.array([row[4] for row in rows], dtype=float),
        cameras=np.ones(len(rows), dtype=int),
    )


def scored_boxes(truth: list[tuple[int, str, float, float]], predictions: list[Row]) -> ScoredBoxes:
    """A submission over as many keyframes as the rows name, each a scene of its own; nothing is left out."""

    def true_table(rows: list[tuple[int, str, float, float]]) -> TrueBoxTable:
        return TrueBoxTable(
            **vars(box_table([(*row, -1.0) for row in rows])),
            tokens=np.array([f'box-{number}' for number in range(len(rows))], dtype=str),
            visibility=np.full(len(rows), 4),
            lidar_points=np.full(len(rows), 10),
        )

    count = 1 + max(row[0] for row in [*truth, *predictions])
    names = tuple(f'scene-{number}' for number in range(count))
    return ScoredBoxes(
        path='results.json',
        split='val',
        true_boxes='points',
        keyframes=Keyframes(
            tokens=tuple(f'sample-{number}' for number in range(count)),
            scenes=np.arange(count),
            positions=np.zeros(count, dtype=int),
            scene_names=names,
            descriptions=('',) * count,
            locations=('here',) * count,
        ),
        truth=true_table(truth),
        predictions=box_table(predictions),
        left_out_truth=true_table([]),
        left_out_predictions=box_table([]),
    )
