"""nuScenes keyframes with the frames before them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmdet3d.datasets import NuScenesDataset
from mmdet3d.datasets.transforms import ObjectRangeFilter
from mmdet3d.registry import DATASETS, TRANSFORMS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.logging import print_log

from bevformer_plugin.errors import InputError
from bevformer_plugin.frame_offsets import checked_offsets
from bevformer_plugin.maps import find_protocol
from bevformer_plugin.seeding import seeded_generators

from .camera_objects import CameraObjects
from .infos import count_true_boxes, in_time_order, load_infos, require_matching
from .infos.can_bus import WITHOUT_POSE
from .map_source import MapSource, footprints_of, require_boxes, require_visibility
from .setting_types import (
    check_names,
    check_path,
    check_range,
    check_switch,
    checked_image_size,
    checked_metainfo,
    checked_queue,
    refuse_settings_of_training,
)
from .training_sampler import SeededIndex
from .transforms import LoadCameraInstances, LoadMapLabels, PackTemporalInputs


@DATASETS.register_module()
class NuScenesTemporalDataset(NuScenesDataset):
    """Keyframes with the images of several cameras; in training each comes with earlier frames of its scene.

    The frames of a training item are its queue: of the ``queue_length`` keyframes before the current one, one is
    dropped at random, so that the time between frames varies, and those of the same scene are kept, oldest first
    (BEVFormer, arXiv 2203.17270, and its published code). Near the start of a scene, or after a keyframe that the
    infos lack, the queue is shorter. With ``frame_offsets`` nothing is drawn: the queue has the keyframes at these
    positions, without those that the scene or the infos lack (BEVFormer v2, arXiv 2211.10439). In test mode an item is
    one frame, because the model carries its history from item to item, see ``SceneStreamSampler``.

    Before the pipeline an item is a dict with fields of the info file's entry, ``images`` (the chosen cameras, each
    with ``img_path``, ``lidar2img`` (4, 4) of the image as stored, ``width`` and ``height``), ``scale`` =
    ``image_size``, ``history`` (list of such dicts, oldest first), with ``map_protocol`` also ``map_source`` and
    ``footprints``, and ``ann_info`` (test mode: ``eval_ann_info``). Boxes are LiDARInstance3DBoxes with velocities in
    the LiDAR frame, of the objects that count by ``true_boxes``. An unknown velocity, as of an object that is
    annotated in one keyframe only, is NaN and not trained on; the published code trains it towards 0.

    Args:
        data_root: nuScenes dataroot, to which image paths in infos are relative.
        ann_file: info file of any format that :func:`load_infos` reads, absolute or relative to ``data_root``.
        pipeline: transforms.
        metainfo: ``dict(classes=...)``, any of the infos' classes in any order; labels are mapped by name.
        cameras: names, in the order of the model's inputs; None takes all cameras.
        image_size: (W, H) to which ``ResizeMultiView`` brings all images; None leaves their size.
        point_cloud_range: (x, y, z) minima, then maxima, in metres; a box whose centre lies outside in x or y is no
            training target. None keeps all boxes.
        queue_length: largest number of frames of an item, with the current one; the published base has 4.
        random_drop: if False, the ``queue_length - 1`` frames right before the current one are taken.
        frame_offsets: positions of an item's frames in keyframes from the current one, rising to 0, in the place of
            ``queue_length`` and ``random_drop``. ``filter_empty_gt`` then looks at the current frame alone.
        test_mode: items are single frames and have ``eval_ann_info``.
        true_boxes: which objects count, 'points', 'visibility' or 'all', see :mod:`.infos.true_boxes`.
        filter_empty_gt: replace an item by another one, drawn at random, if any frame of its queue has no boxes of
            the classes in range, as the published training does. Not for ``test_mode``.
        map_protocol: name of the protocol by which ``LoadMapLabels`` in the pipeline draws the true map of items, see
            :mod:`bevformer_plugin.maps.protocols`; it needs the map expansion of nuScenes and the tables ``scene`` and
            ``log``. None draws none.
        with_camera_objects: give training items ``camera_objects`` of their frames, :class:`CameraObjects`, which
            ``LoadCameraInstances`` needs.
        lazy_init: read nothing before :meth:`full_init`, as for ``mmdet3d.apis.init_model``, which needs only classes.

    Raises:
        FileNotFoundError: ``data_root``, ``ann_file`` or a file that ``map_protocol`` needs does not exist.
        InputError: a setting is of another type; a class or camera is unknown; infos are of another format or hold
            broken numbers; ``image_size``, ``point_cloud_range``, ``queue_length`` or ``frame_offsets`` cannot be
            used; ``true_boxes`` is unknown or leaves none of the boxes; there are no boxes to train on;
            ``filter_empty_gt`` is set in ``test_mode`` or leaves nothing; ``map_protocol`` is unknown, or set without
            ``LoadMapLabels``.
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
        queue_length: int | None = None,
        random_drop: bool | None = None,
        frame_offsets: list[int] | None = None,
        test_mode: bool = False,
        filter_empty_gt: bool = False,
        true_boxes: str = 'points',
        map_protocol: str | None = None,
        with_camera_objects: bool = False,
        lazy_init: bool = False,
    ) -> None:
        metainfo = {**self.METAINFO, **checked_metainfo(metainfo)}
        check_path('data_root', data_root)
        check_path('ann_file', ann_file)
        check_names('metainfo.classes', metainfo['classes'])
        if cameras is not None:
            check_names('cameras', cameras)
        self.queue_length, self.random_drop = checked_queue(queue_length, random_drop, frame_offsets)
        if test_mode:
            refuse_settings_of_training(
                {
                    'queue_length': queue_length,
                    'random_drop': random_drop,
                    'frame_offsets': frame_offsets,
                    'with_camera_objects': with_camera_objects or None,
                    'filter_empty_gt': filter_empty_gt or None,
                }
            )
        for name, value in (
            ('test_mode', test_mode),
            ('filter_empty_gt', filter_empty_gt),
            ('with_camera_objects', with_camera_objects),
            ('lazy_init', lazy_init),
        ):
            check_switch(name, value)
        self.cameras: list[str] | None = None if cameras is None else list(cameras)
        self.image_size = checked_image_size(image_size)
        self.frame_offsets = None if frame_offsets is None else checked_offsets(frame_offsets)
        check_range(point_cloud_range)
        self.range_filter = None if point_cloud_range is None else ObjectRangeFilter(point_cloud_range)
        self.true_boxes = true_boxes
        self.map_protocol = None if map_protocol is None else find_protocol(map_protocol)
        _check_drawing(pipeline, map_protocol)
        self.map_source: MapSource | None = None
        self.with_camera_objects = with_camera_objects
        self.test_mode = test_mode
        self._info_file = Path(data_root, ann_file)
        self._infos = None if lazy_init else self._read_infos(Path(data_root), metainfo['classes'])
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
            with_velocity=False,  # mmdetection3d would turn unknown velocities into 0
            lazy_init=lazy_init,
        )

    def __getitem__(self, idx: int) -> dict:
        """Return an item; everything random about it follows from the seed if the index is a :class:`SeededIndex`."""
        if not isinstance(idx, SeededIndex):
            return super().__getitem__(idx)
        with seeded_generators(idx.seed):
            return super().__getitem__(int(idx))

    def _read_infos(self, data_root: Path, classes: tuple[str, ...]) -> dict:
        """Read the info file and log how many of its boxes count.

        Raises:
            FileNotFoundError: there is no such folder or file.
            InputError: the file is of another format or does not know a class, or in training its frames are out of
                order or hold no boxes.
        """
        if not data_root.is_dir():
            raise FileNotFoundError(f'no data_root {data_root}: give the folder that holds samples/ and the infos')
        infos = load_infos(self._info_file, root=data_root)
        require_matching(infos['metainfo'], classes=classes)
        counted, total = count_true_boxes(infos['data_list'], self.true_boxes)
        print_log(
            f'{self._info_file}: {counted} of {total} boxes count by true_boxes={self.true_boxes!r}', logger='current'
        )
        if not (self.test_mode or in_time_order(infos['data_list'])):
            raise InputError(
                f'{self._info_file} does not hold its frames scene by scene in time order, in which training looks '
                'for the frames before each: make it again with tools/create_data.py'
            )
        if not (counted or self.test_mode):
            raise InputError(f'{self._info_file} holds no boxes to train on: give the infos of a training split')
        if self.map_protocol is not None:
            require_boxes(infos['data_list'], self.map_protocol, str(self._info_file))
            require_visibility(infos['data_list'], self.map_protocol)
            scenes = {entry['scene_token'] for entry in infos['data_list']}
            self.map_source = MapSource(data_root, infos['metainfo']['version'], scenes, self.map_protocol)
        return infos

    def load_data_list(self) -> list[dict]:
        """Return the entries of the info file, reduced to what items need."""
        infos = self._infos or self._read_infos(Path(str(self.data_root)), self._metainfo['classes'])
        self._infos = None
        self._metainfo.update({key: infos['metainfo'][key] for key in ('version', 'can_bus', 'frame')})
        self._metainfo['map_protocol'] = None if self.map_protocol is None else self.map_protocol.name
        classes = list(self._metainfo['classes'])
        self._names = {label: name for name, label in infos['metainfo']['categories'].items()}
        self.label_mapping = {
            index: classes.index(name) if name in classes else -1
            for name, index in infos['metainfo']['categories'].items()
        }
        if self.cameras is None:
            self.cameras = list(infos['data_list'][0]['images'])
        self._metainfo.update(cameras=self.cameras, image_size=self.image_size)
        frames = [self.parse_data_info(info) for info in infos['data_list']]
        if self.filter_empty_gt:
            self._replacements = self._find_replacements(frames)
        if not self.test_mode:
            self._say_classes_without_boxes(frames)
            self._refuse_objects_without_points(frames)
        return frames

    def _say_classes_without_boxes(self, frames: list[dict]) -> None:
        """Log which of the chosen classes have nothing to be trained on, and refuse if all of them have nothing.

        Raises:
            InputError: no box is of the classes and within range; only maps can be trained on without.
        """
        labels = [frame['ann_info']['gt_labels_3d'] for frame in frames]
        counts = np.bincount(np.concatenate(labels).astype(np.int64), minlength=len(self.metainfo['classes']))
        without = [name for name, count in zip(self.metainfo['classes'], counts, strict=True) if not count]
        if counts.sum() == 0 and self.map_protocol is None:
            raise InputError(
                f'{self._info_file} has no box of the classes {", ".join(without)} within point_cloud_range that '
                'counts, so there is nothing to train on: check classes, range and true_boxes'
            )
        if without:
            print_log(f'{self._info_file}: no boxes to train on of {", ".join(without)}', logger='current')

    def _refuse_objects_without_points(self, frames: list[dict]) -> None:
        """Refuse a pipeline that leaves no object to the cameras, since none has enough LiDAR and radar points.

        Raises:
            InputError: naming ``min_points`` of ``LoadCameraInstances`` and the largest number of points.
        """
        least = [one.min_points for one in self.pipeline.transforms if isinstance(one, LoadCameraInstances)]
        if not (least and self.with_camera_objects):
            return
        points = np.concatenate([frame['ann_info']['camera_objects'].num_points for frame in frames])
        if len(points) and points.max() < max(least):
            raise InputError(
                f'LoadCameraInstances takes objects of at least min_points={max(least)} LiDAR and radar points, and '
                f'none of {len(points)} in {self._info_file} has more than {points.max()}: set min_points=0 for data '
                'without LiDAR'
            )

    def parse_data_info(self, info: dict) -> dict:
        """Reduce an entry to the chosen cameras, and turn its matrices into arrays, its objects into boxes and labels.

        Raises:
            InputError: the frame lacks a chosen camera.
        """
        cameras = list(info['images']) if self.cameras is None else self.cameras
        missing = [name for name in cameras if name not in info['images']]
        if missing:
            raise InputError(
                f'no camera {", ".join(missing)} in sample {info["token"]}: choose among {", ".join(info["images"])}'
            )
        info['images'] = {name: info['images'][name] for name in cameras}
        drawn = {} if self.map_protocol is None else {'footprints': footprints_of(info['instances'], self._names)}
        info = self._parsed(info)
        for name, image in info['images'].items():
            cam2img = np.eye(4)
            cam2img[:3, :3] = np.array(image['cam2img'], dtype=np.float64)
            info['images'][name] = {
                'img_path': image['img_path'],
                'lidar2img': cam2img @ np.array(image['lidar2cam'], dtype=np.float64),
                'lidar2cam': np.array(image['lidar2cam'], dtype=np.float64),
                'width': image['width'],
                'height': image['height'],
            }
        kept = ('token', 'prev', 'timestamp', 'scene_token', 'scene_name', 'frame_idx', 'images')
        return {
            **{key: info[key] for key in (*kept, 'ann_info', 'eval_ann_info') if key in info},
            'ego2global': np.array(info['ego2global'], dtype=np.float64),
            'lidar2ego': np.array(info['lidar_points']['lidar2ego'], dtype=np.float64),
            'can_bus': np.array(info['can_bus'][WITHOUT_POSE], dtype=np.float64),
            **drawn,
        }

    def _parsed(self, info: dict) -> dict:
        """Return what mmdetection3d makes of an entry; for other kinds of data sets it makes a list of items."""
        parsed = super().parse_data_info(info)
        assert isinstance(parsed, dict)
        return parsed

    def parse_ann_info(self, info: dict) -> dict:
        """Return boxes (n, 9) and labels (n,) of the chosen classes, in training only those within range."""
        ann_info = _with_velocities(super().parse_ann_info(info))
        extra = {'camera_objects': CameraObjects.of_annotations(ann_info)} if self.with_camera_objects else {}
        ann_info = self._remove_dontcare({key: ann_info[key] for key in ('gt_bboxes_3d', 'gt_labels_3d')})
        if self.range_filter is not None and not self.test_mode:
            ann_info = self.range_filter.transform(ann_info)
        return {**ann_info, **extra}

    def get_data_info(self, idx: int) -> dict:
        """Return the item of a keyframe before the pipeline, as a copy that the pipeline may change."""
        idx = range(len(self))[idx]
        drawn = {} if self.map_source is None else {'map_source': self.map_source}
        return {**self._frame(idx), **drawn, 'history': [] if self.test_mode else self._draw_history(idx)}

    def prepare_data(self, idx: int) -> dict | None:
        """Return the item after the pipeline, or None if ``filter_empty_gt`` replaces it, so that another is drawn."""
        item = self.get_data_info(idx)
        trained_on = (item, *item['history']) if self.frame_offsets is None else (item,)
        if self.filter_empty_gt and not all(map(_has_boxes, trained_on)):
            return None
        if self.with_camera_objects and not self.test_mode:
            item['camera_objects'] = item['ann_info']['camera_objects']
        return self.pipeline({**item, 'box_type_3d': self.box_type_3d, 'box_mode_3d': self.box_mode_3d})

    def _rand_another(self) -> int:
        """Draw the index of an item to replace one that ``filter_empty_gt`` takes out."""
        return int(np.random.choice(self._replacements))

    def _find_replacements(self, frames: list[dict]) -> np.ndarray:
        """Find the indices of items that can have a queue with boxes in all its frames.

        Raises:
            InputError: there are none.
        """
        has_boxes = np.array([_has_boxes(frame) for frame in frames])
        usable: list[int] = []
        for idx in np.flatnonzero(has_boxes).tolist():
            if self.frame_offsets is not None:
                usable.append(idx)
                continue
            before = self._history_indices(idx, frames.__getitem__)
            empty_ages = [age for age, index in enumerate(before, 1) if not has_boxes[index]]
            # A single empty frame can be the one that is dropped: any with random_drop, else the oldest one.
            can_drop = len(empty_ages) == 1 and (self.random_drop or empty_ages == [self.queue_length])
            if not empty_ages or can_drop:
                usable.append(idx)
        if not usable:
            raise InputError(
                f'filter_empty_gt leaves nothing of {len(frames)} keyframes, {has_boxes.sum()} of which have boxes '
                f'of the classes {", ".join(self.metainfo["classes"])} within point_cloud_range: check classes and '
                'range, or set filter_empty_gt=False'
            )
        print_log(
            f'{len(frames) - has_boxes.sum()} of {len(frames)} keyframes have no boxes to train on: filter_empty_gt '
            'replaces items with one of them',
            logger='current',
        )
        return np.array(usable)

    def sample_tokens(self) -> list[str]:
        """Return the nuScenes token of each keyframe, in the order of the dataset."""
        return [self._frame(idx)['token'] for idx in range(len(self))]

    def scenes(self) -> list[list[int]]:
        """Return the indices of each scene's frames in time order, scenes in the order of the info file."""
        scenes: dict[str, list[tuple[float, int]]] = {}
        for idx in range(len(self)):
            frame = self._frame(idx)
            scenes.setdefault(frame['scene_token'], []).append((frame['timestamp'], idx))
        return [[idx for _, idx in sorted(frames)] for frames in scenes.values()]

    def _frame(self, idx: int) -> dict:
        """Return a copy of a keyframe's data without history."""
        return {**super().get_data_info(idx), 'scale': self.image_size}

    def _draw_history(self, idx: int) -> list[dict]:
        """Draw the earlier frames of a training item, oldest first."""
        if self.frame_offsets is not None:
            return self._frames_at(idx, self.frame_offsets[:-1])
        # The age drawn may lie before the scene's start, as in the published code; then no frame is dropped.
        dropped_age = np.random.randint(1, self.queue_length + 1) if self.random_drop else self.queue_length
        before = self._history_indices(idx, self._frame)
        return [self._frame(index) for age, index in reversed([*enumerate(before, 1)]) if age != dropped_age]

    def _frames_at(self, idx: int, offsets: tuple[int, ...]) -> list[dict]:
        """Return the frames of a scene at positions relative to one of them, without those that are missing."""
        current = self._frame(idx)
        wanted = {current['frame_idx'] + offset for offset in offsets}
        # Positions rise with the indices, so those wanted are no farther away than the oldest offset.
        before = [self._frame(index) for index in range(max(idx + offsets[0], 0), idx)] if offsets else []
        return [
            frame
            for frame in before
            if frame['scene_token'] == current['scene_token'] and frame['frame_idx'] in wanted
        ]

    def _history_indices(self, idx: int, frame_of: Callable[[int], dict]) -> list[int]:
        """Return the indices of the ``queue_length`` keyframes before one, newest first.

        They end at the start of the scene or where the infos lack a keyframe. ``frame_of`` gives the frame of an
        index.
        """
        indices: list[int] = []
        following = frame_of(idx)
        for index in range(idx - 1, max(idx - self.queue_length, 0) - 1, -1):
            frame = frame_of(index)
            if frame['token'] != following['prev'] or frame['scene_token'] != following['scene_token']:
                break
            following = frame
            indices.append(index)
        return indices


def _check_drawing(pipeline: list, map_protocol: str | None) -> None:
    """Refuse a pipeline that draws maps by no protocol, or none by the one that is set."""
    kinds = [TRANSFORMS.get(step['type']) if isinstance(step, dict) else type(step) for step in pipeline]
    if map_protocol is None and LoadMapLabels in kinds:
        raise InputError(
            'LoadMapLabels in the pipeline draws maps by map_protocol of the dataset, which is not set: set it, '
            "such as map_protocol='paper', or take the transform out"
        )
    packed = kinds.index(PackTemporalInputs) if PackTemporalInputs in kinds else len(kinds)
    if map_protocol is not None and LoadMapLabels not in kinds[:packed]:
        raise InputError(
            f"map_protocol={map_protocol!r} has no effect: put dict(type='LoadMapLabels') into the pipeline, "
            'before PackTemporalInputs'
        )


def _has_boxes(frame: dict) -> bool:
    return len(frame['ann_info']['gt_labels_3d']) > 0


def _with_velocities(ann_info: dict) -> dict:
    """Append the velocities of the infos, NaN if unknown, to the boxes of annotations, which become (n, 9)."""
    boxes = ann_info['gt_bboxes_3d'].tensor
    velocities = torch.as_tensor(np.asarray(ann_info.get('velocities', ()), dtype=np.float32)).reshape(len(boxes), 2)
    return {**ann_info, 'gt_bboxes_3d': LiDARInstance3DBoxes(torch.cat([boxes, velocities], dim=1), box_dim=9)}
