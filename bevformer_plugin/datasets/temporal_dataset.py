"""nuScenes keyframes with the frames before them."""

from pathlib import Path

import numpy as np
from mmdet3d.datasets import NuScenesDataset
from mmdet3d.datasets.transforms import ObjectRangeFilter
from mmdet3d.registry import DATASETS

from .infos import load_infos, require_matching
from .training_sampler import SeededIndex, seeded_generators


@DATASETS.register_module()
class NuScenesTemporalDataset(NuScenesDataset):
    """Multi-camera keyframes; in training each comes with earlier frames of its scene.

    The training queue: of the ``queue_length`` keyframes before the current one, one is dropped at random, so that
    the time between frames varies, and those of the same scene are kept, oldest first (BEVFormer, arXiv 2203.17270,
    and its published code). Near the start of a scene, or after a keyframe that the infos lack, the queue is shorter.
    In test mode an item is one frame: the model carries its history from item to item, see ``SceneStreamSampler``.

    Before the pipeline an item is a dict with fields of the info file's entry, ``images`` (the chosen cameras, each
    ``img_path`` and ``lidar2img`` (4, 4) of the image as stored), ``scale`` = ``image_size``, ``history`` (list of
    such dicts, oldest first) and ``ann_info`` (test mode: ``eval_ann_info``). Boxes are LiDARInstance3DBoxes with
    velocities in the LiDAR frame, of objects with at least one lidar or radar point.

    Args:
        data_root: nuScenes dataroot; image paths in infos are relative to it.
        ann_file: info file, absolute or relative to ``data_root``; formats as in :func:`load_infos`.
        pipeline: transforms.
        metainfo: ``dict(classes=...)``; any order and subset of the infos' classes, mapped by name.
        cameras: names, in the order of the model's inputs; None takes all.
        image_size: (W, H) to which ``ResizeMultiView`` brings all images; None leaves them.
        point_cloud_range: (x, y, z) minima, then maxima, metres; boxes centred outside it in x or y are no training
            targets. None keeps all.
        queue_length: most frames of an item, the current one included; 4 is that of the published base.
        random_drop: False takes the ``queue_length - 1`` frames right before the current one.
        test_mode: single frames, with ``eval_ann_info``.
        filter_empty_gt: in training, replace an item without boxes by a random other one.

    Raises:
        FileNotFoundError: no such ``data_root`` or ``ann_file``.
        ValueError: unknown class or camera, infos of another format, unusable ``image_size`` or ``queue_length``.
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str,
        pipeline: list,
        metainfo: dict | None = None,
        cameras: list[str] | None = None,
        image_size: tuple[int, int] | None = None,
        point_cloud_range: list[float] | None = None,
        queue_length: int = 4,
        random_drop: bool = True,
        test_mode: bool = False,
        filter_empty_gt: bool = False,
    ) -> None:
        if not Path(data_root).is_dir():
            raise FileNotFoundError(f'no data_root {data_root}: give the folder that holds samples/ and the infos')
        if queue_length < 1:
            raise ValueError(f'queue_length must be at least 1, the current frame alone, not {queue_length}')
        if cameras is not None and not cameras:
            raise ValueError('cameras is empty: name at least one, or give None for all')
        self.cameras = None if cameras is None else list(cameras)
        self.image_size = _checked_image_size(image_size)
        self.queue_length = queue_length
        self.random_drop = random_drop
        self.range_filter = None if point_cloud_range is None else ObjectRangeFilter(point_cloud_range)
        metainfo = {**self.METAINFO, **(metainfo or {})}
        self._infos = load_infos(Path(data_root, ann_file), root=data_root)
        require_matching(self._infos['metainfo'], classes=metainfo['classes'])
        super().__init__(
            data_root=str(data_root),
            ann_file=str(ann_file),
            pipeline=pipeline,
            metainfo={key: value for key, value in metainfo.items() if key != 'version'},
            data_prefix={'img': ''},
            modality={'use_camera': True, 'use_lidar': False},
            filter_empty_gt=filter_empty_gt,
            test_mode=test_mode,
            use_valid_flag=True,
        )

    def __getitem__(self, idx: int) -> dict:
        """An item; a :class:`SeededIndex` alone decides on all that is random about it."""
        if not isinstance(idx, SeededIndex):
            return super().__getitem__(idx)
        with seeded_generators(idx.seed):
            return super().__getitem__(int(idx))

    def load_data_list(self) -> list[dict]:
        """Entries of the info file, reduced to what items need."""
        infos = self._infos
        del self._infos
        self._metainfo['version'] = infos['metainfo']['version']
        classes = list(self._metainfo['classes'])
        self.label_mapping = {
            index: classes.index(name) if name in classes else -1
            for name, index in infos['metainfo']['categories'].items()
        }
        if self.cameras is None:
            self.cameras = list(infos['data_list'][0]['images'])
        return [self.parse_data_info(info) for info in infos['data_list']]

    def parse_data_info(self, info: dict) -> dict:
        """An entry with the chosen cameras only, matrices as arrays and objects as boxes and labels.

        Raises:
            ValueError: if the frame lacks a chosen camera.
        """
        missing = [name for name in self.cameras if name not in info['images']]
        if missing:
            raise ValueError(
                f'no camera {", ".join(missing)} in sample {info["token"]}: choose among {", ".join(info["images"])}'
            )
        info['images'] = {name: info['images'][name] for name in self.cameras}
        info = super().parse_data_info(info)
        for name, image in info['images'].items():
            cam2img = np.eye(4)
            cam2img[:3, :3] = image['cam2img']
            info['images'][name] = {
                'img_path': image['img_path'],
                'lidar2img': cam2img @ np.asarray(image['lidar2cam']),
            }
        kept = ('token', 'prev', 'timestamp', 'scene_token', 'scene_name', 'frame_idx', 'images')
        return {
            **{key: info[key] for key in (*kept, 'ann_info', 'eval_ann_info') if key in info},
            'ego2global': np.array(info['ego2global'], dtype=np.float64),
            'lidar2ego': np.array(info['lidar_points']['lidar2ego'], dtype=np.float64),
            'can_bus': np.array(info['can_bus'], dtype=np.float64),
        }

    def parse_ann_info(self, info: dict) -> dict:
        """Boxes (n, 9) and labels (n,) of the chosen classes; in training of those within range."""
        ann_info = super().parse_ann_info(info)
        ann_info = self._remove_dontcare({key: ann_info[key] for key in ('gt_bboxes_3d', 'gt_labels_3d')})
        if self.range_filter is not None and not self.test_mode:
            ann_info = self.range_filter(ann_info)
        return ann_info

    def get_data_info(self, idx: int) -> dict:
        """The item of a keyframe before the pipeline; its own copy, so that the pipeline may change it."""
        idx = range(len(self))[idx]
        return {**self._frame(idx), 'history': [] if self.test_mode else self._draw_history(idx)}

    def scenes(self) -> list[list[int]]:
        """Indices of each scene's frames in time order, scenes in the order of the info file."""
        scenes = {}
        for idx in range(len(self)):
            frame = self._frame(idx)
            scenes.setdefault(frame['scene_token'], []).append((frame['timestamp'], idx))
        return [[idx for _, idx in sorted(frames)] for frames in scenes.values()]

    def _frame(self, idx: int) -> dict:
        return {**super().get_data_info(idx), 'scale': self.image_size}

    def _draw_history(self, idx: int) -> list[dict]:
        """Earlier frames for a training item, oldest first."""
        # The place dropped may lie before the scene's start, as in the published code: then all frames stay.
        dropped = np.random.randint(1, self.queue_length + 1) if self.random_drop else self.queue_length
        history, following = [], self._frame(idx)
        for age in range(1, min(self.queue_length, idx) + 1):
            frame = self._frame(idx - age)
            if frame['token'] != following['prev'] or frame['scene_token'] != following['scene_token']:
                break
            following = frame
            if age != dropped:
                del frame['ann_info']
                history.insert(0, frame)
        return history


def _checked_image_size(image_size) -> tuple[int, int] | None:
    """Return it as a tuple of two ints.

    Raises:
        ValueError: if it is not two positive whole numbers.
    """
    if image_size is None:
        return None
    size = tuple(image_size)
    if len(size) != 2 or not all(isinstance(length, int) and length > 0 for length in size):
        raise ValueError(f'image_size must be (width, height) in whole pixels, such as (800, 450), not {image_size}')
    return size
