"""Small pictures of keyframes for the page: cameras above the bird's-eye view."""

import base64
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from nuscenes import NuScenes

from bevformer_plugin.datasets.infos import CATEGORIES
from bevformer_plugin.datasets.infos.can_bus import CanBusMessages
from bevformer_plugin.datasets.infos.nuscenes_tables import EntryBuilder
from bevformer_plugin.evaluation import SubmissionKind
from bevformer_plugin.visualization import Frame, boxes_from_results, draw_frame, true_boxes

PICTURE_WIDTH = 960  # pixels, half of what draw_frame makes
QUALITIES = (80, 70, 60, 50, 40, 30)  # of JPEG, tried from the first


class KeyframePictures:
    """Draws keyframes of tables with the boxes of a submission.

    Args:
        tables: see :func:`open_tables`; image files are searched below their ``dataroot``.
    """

    def __init__(self, tables: NuScenes) -> None:
        self.tables = tables
        self.builder = EntryBuilder(tables, CanBusMessages(None))

    def has_images(self, token: str) -> bool:
        """Return whether the images of all cameras of a sample are on disk."""
        sample = self.tables.get('sample', token)
        cameras = [camera for camera in self.builder.cameras if camera in sample['data']]
        return bool(cameras) and all(self.builder.on_disk(sample, camera) for camera in cameras)

    def draw(
        self, token: str, entries: Sequence[dict], kind: SubmissionKind, score_thr: float, note: str, limit: int
    ) -> str:
        """Draw a keyframe with true boxes that have points, and predicted ones.

        Args:
            token: of the sample.
            entries: the sample's entries of a submission.
            kind: detections, or tracks, whose ids are written beside the boxes.
            score_thr: predicted boxes below this score are left out.
            note: a few words for the right end of the title.
            limit: bytes that the picture should have at most; the quality falls to its lowest, not below.

        Returns:
            A data URI of a JPEG.

        Raises:
            InputError: training would refuse an image, or the tables are broken.
        """
        sample = self.tables.get('sample', token)
        info = self.builder.keyframe(sample, self._number(sample), None)
        info['instances'] = self.builder.instances(sample)
        classes = {label: name for name, label in CATEGORIES.items()}
        predictions = boxes_from_results(list(entries), info, kind)
        frame = Frame(Path(self.tables.dataroot), info, true_boxes(info, classes), predictions)
        return as_data_uri(draw_frame(frame, score_thr, note), limit)

    def _number(self, sample: dict) -> int:
        """Return how many keyframes of the scene come before a sample."""
        number = 0
        while sample['prev']:
            sample, number = self.tables.get('sample', sample['prev']), number + 1
        return number


def as_data_uri(picture: np.ndarray, limit: int) -> str:
    """Make a picture (H, W, 3) uint8 BGR a JPEG of ``PICTURE_WIDTH`` and at most ``limit`` bytes, as a data URI.

    The quality is the highest of ``QUALITIES`` that keeps the limit, or the lowest.
    """
    height = round(picture.shape[0] * PICTURE_WIDTH / picture.shape[1])
    small = cv2.resize(picture, (PICTURE_WIDTH, height), interpolation=cv2.INTER_AREA)
    encoded = b''
    for quality in QUALITIES:
        encoded = cv2.imencode('.jpg', small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(encoded) <= limit:
            break
    return 'data:image/jpeg;base64,' + base64.b64encode(encoded).decode()
