"""Frames of somebody's own cameras, brought into the form that a model was trained on."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet3d.structures import Box3DMode, LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.structures import InstanceData
from numpy.typing import ArrayLike
from torch import Tensor

from bevformer_plugin.configuration import building
from bevformer_plugin.errors import InputError
from bevformer_plugin.maps import MapProtocol
from bevformer_plugin.models import Frame

from .detections import Detections
from .predicted_map import PredictedMap
from .rig import Rig
from .stream_state import StreamState
from .vehicle_pose import ego2global_of

# Transforms that a test pipeline may have; own frames have no truth.
LOAD_TRUTH = ('LoadAnnotations3D', 'LoadMapLabels')
LATEST_SECONDS = 1e11  # the year 5138; times beyond are counted in smaller units
# A projection that puts every point behind the camera, for cameras without an image.
SEES_NOTHING = np.array([[0.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, -1], [0, 0, 0, 1]])


@dataclass(frozen=True, eq=False)
class StreamFrame:
    """One frame of a stream, see :meth:`FramePredictor.step`.

    Attributes:
        images: by camera.
        rig: the cameras.
        pose: of the vehicle.
        timestamp: seconds.
        can_bus: what was recorded of the motion.
        scene: name of the drive; where it changes, the stream begins anew.
    """

    images: Mapping[str, np.ndarray | None]
    rig: Rig
    pose: ArrayLike | None = None
    timestamp: float | None = None
    can_bus: ArrayLike | None = None
    scene: str = ''


class NetworkOutput(NamedTuple):
    """The objects that a network finds in a frame, the highest scores first, and the map.

    Attributes:
        boxes: (n, 9) x, y, z of the centre of the underside, length, width, height, yaw, velocity x, y; LiDAR frame.
        scores: (n,) from 0 to 1.
        labels: (n,) int64.
        map: (classes, rows, columns) probabilities, None of a model without a map.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    map: Tensor | None

    @classmethod
    def of(cls, found: InstanceData | None, probabilities: Tensor | None) -> 'NetworkOutput':
        """Make the output of decoded boxes, None of a model that detects nothing, and of a map."""
        if found is None:
            return cls(torch.zeros(0, 9), torch.zeros(0), torch.zeros(0, dtype=torch.int64), probabilities)
        boxes, scores, labels = (found.get(key) for key in ('bboxes_3d', 'scores_3d', 'labels_3d'))
        return cls(boxes.tensor, scores, labels, probabilities)


@dataclass(frozen=True)
class ModelInputs:
    """What a model takes from outside of it.

    Attributes:
        classes: names by label.
        cameras: names in the order of the model's inputs.
        image_size: (W, H) to which images are brought; None takes them as they are.
        pipeline: transforms of the test dataset, as configs.
    """

    classes: tuple[str, ...]
    cameras: tuple[str, ...]
    image_size: tuple[int, int] | None
    pipeline: Sequence[dict[str, Any]]

    @classmethod
    def from_config(cls, cfg: Config) -> 'ModelInputs':
        """Read what a model takes from ``test_dataloader.dataset`` of its config.

        Raises:
            InputError: if it does not name the cameras and classes.
        """
        dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
        names = {'metainfo.classes': (dataset.get('metainfo') or {}).get('classes'), 'cameras': dataset.get('cameras')}
        for setting, values in names.items():
            if not values:
                raise InputError(f'test_dataloader.dataset.{setting} of the config names none: the model needs them')
        classes, cameras = (tuple(values or ()) for values in names.values())
        size = dataset.get('image_size')
        return cls(classes, cameras, None if size is None else (size[0], size[1]), dataset.get('pipeline', []))

    @property
    def metainfo(self) -> dict[str, Any]:
        """The entries of a dataset's metainfo that a checkpoint is compared with."""
        return {'classes': self.classes, 'cameras': self.cameras, 'image_size': self.image_size, 'frame': 'lidar'}


class FramePredictor(ABC):
    """Brings a frame of somebody's own cameras into the form that a model was trained on, and detects in it.

    Args:
        inputs: what the model takes.
        detected: names of the classes of its boxes by label; empty for a model that predicts the map alone.
        map_protocol: of the map that it predicts; None for a model without.
    """

    def __init__(self, inputs: ModelInputs, detected: tuple[str, ...], map_protocol: MapProtocol | None) -> None:
        self.inputs = inputs
        self.detected = detected
        self.map_protocol = map_protocol
        loading, *transforms = inputs.pipeline or [{}]
        if loading.get('type') != 'LoadMultiViewImages':
            raise InputError(
                f'test_dataloader.dataset.pipeline begins with {loading.get("type")}, and images of own cameras take '
                'the place of LoadMultiViewImages: put it first'
            )
        self.dtype = np.dtype(np.float32 if loading.get('to_float32') else np.uint8)
        with building('test_dataloader.dataset.pipeline'):
            self.transforms = Compose([each for each in transforms if each.get('type') not in LOAD_TRUTH])

    @abstractmethod
    def detect(self, packed: Tensor, frame: Frame, state: StreamState) -> tuple[NetworkOutput, StreamState]:
        """Run the network on a frame.

        Args:
            packed: (1, N, 3, H, W) images as the pipeline packs them, BGR, neither normalised nor padded.
            frame: its calibration, pose and time.
            state: what the frame before left behind; without history nothing of it counts.

        Returns:
            What it found, and the state for the next frame.
        """

    def reset(self) -> StreamState:
        """Return the state of a stream that has seen nothing, with which a drive begins."""
        return StreamState()

    @torch.no_grad()
    def step(
        self,
        images: Mapping[str, np.ndarray | None],
        rig: Rig,
        pose: ArrayLike | None,
        timestamp: float | None,
        state: StreamState | None = None,
        *,
        can_bus: ArrayLike | None = None,
    ) -> tuple[Detections, StreamState]:
        """Detect objects in one frame.

        Args:
            images: by camera of the rig, (H, W, 3) uint8 BGR as OpenCV reads them, undistorted, of the size in the
                rig. None for a camera without an image in this frame: it is masked, as if it saw nothing.
            rig: the cameras; those of the model that it lacks are masked as well.
            pose: of the vehicle in a frame that stays where it is: (4, 4) ego2global in metres, or (x, y, yaw) in
                metres and radians, counter-clockwise. None treats the frame alone, without history.
            timestamp: seconds; it may be None without a pose.
            state: what the frame before returned; None begins a stream.
            can_bus: (13,) what was recorded of the motion, see :class:`.models.bev.frames.Frame`; None does without.

        Returns:
            The detections, with the map of a model that predicts one, and the state for the next frame.

        Raises:
            InputError: if images, rig, pose, time and model do not belong together; the message says what to do.
        """
        state = StreamState() if state is None else state
        _check_types(images, rig, state)
        seconds = _seconds(timestamp, pose, state)
        ego2global = None if pose is None else ego2global_of(pose)
        packed, frame = self.prepare(images, rig, ego2global, seconds, can_bus)
        history = None if ego2global is None else state.history
        found, after = self.detect(packed, frame, StreamState(history, state.view))
        detections = Detections(
            bboxes_3d=LiDARInstance3DBoxes(found.boxes.cpu(), box_dim=found.boxes.shape[-1]),
            scores=found.scores.cpu().numpy(),
            labels=found.labels.cpu().numpy(),
            classes=self.detected,
            rig=rig,
            ego2global=ego2global,
            timestamp=None if timestamp is None else seconds,
            map=self._map(found.map, rig, ego2global),
        )
        return detections, after if ego2global is not None else StreamState(None, after.view)

    def _map(self, probabilities: Tensor | None, rig: Rig, ego2global: np.ndarray | None) -> PredictedMap | None:
        if probabilities is None or self.map_protocol is None:
            return None
        return PredictedMap(self.map_protocol, probabilities.cpu().numpy(), rig.lidar2ego, ego2global)

    def prepare(
        self,
        images: Mapping[str, np.ndarray | None],
        rig: Rig,
        ego2global: np.ndarray | None,
        seconds: float,
        can_bus: ArrayLike | None = None,
    ) -> tuple[Tensor, Frame]:
        """Bring a frame into the form that the model was trained on, as :meth:`step` does first.

        Args:
            images: see :meth:`step`.
            rig: see :meth:`step`.
            ego2global: (4, 4) pose of the vehicle, or None.
            seconds: the frame's time.
            can_bus: see :meth:`step`.

        Returns:
            The images as the pipeline packs them, (1, N, 3, H, W), and their calibration, pose and time.

        Raises:
            InputError: see :meth:`step`.
        """
        self._check_names(images, rig)
        rig.require_rigid()
        pose = np.eye(4) if ego2global is None else ego2global
        item = self.transforms(self._item(images, rig, pose, seconds, can_bus))
        if not isinstance(item, dict):
            raise InputError('test_dataloader.dataset.pipeline gives nothing for a frame of own cameras')
        meta = {key: value for key, value in item['data_samples'].metainfo.items() if value is not None}
        return item['inputs']['img'], Frame.from_meta(meta, len(self.inputs.cameras))

    def stream(self, frames: Iterable[StreamFrame]) -> Iterator[Detections]:
        """Detect objects frame by frame, each with what the frames before it left behind.

        Args:
            frames: in the order of time, drive after drive.

        Yields:
            The detections of each frame.

        Raises:
            InputError: as :meth:`step`, or if a frame is no :class:`StreamFrame`.
        """
        if not isinstance(frames, Iterable):
            raise InputError(f'stream takes a sequence of StreamFrame objects, got {type(frames).__name__}')
        state, scene = self.reset(), None
        for frame in frames:
            if not isinstance(frame, StreamFrame):
                raise InputError(
                    f'a frame of a stream is a StreamFrame(images, rig, pose, timestamp), got {type(frame).__name__}'
                )
            if frame.scene != scene:
                state, scene = self.reset(), frame.scene
            detections, state = self.step(
                frame.images, frame.rig, frame.pose, frame.timestamp, state, can_bus=frame.can_bus
            )
            yield detections

    def _check_names(self, images: Mapping[str, np.ndarray | None], rig: Rig) -> None:
        """Refuse cameras that the model does not know, and images that do not go with the rig.

        Raises:
            InputError: naming them.
        """
        unknown = [name for name in rig.cameras if name not in self.inputs.cameras]
        if unknown:
            looking = ', '.join(f'{name} looks {rig.cameras[name].yaw:.0f} degrees to the left' for name in unknown)
            raise InputError(
                f'the rig has cameras that the model does not know: {looking} of straight ahead. The model knows '
                f'{", ".join(self.inputs.cameras)}: name each camera like the one that looks in its direction, and '
                'leave out what is more'
            )
        missing, foreign = rig.cameras.keys() - images.keys(), images.keys() - rig.cameras.keys()
        if missing:
            raise InputError(f'no image of {", ".join(sorted(missing))}: give None for a camera without one')
        if foreign:
            raise InputError(f'images of {", ".join(sorted(foreign))} came, which the rig does not have')
        if all(image is None for image in images.values()):
            raise InputError('no camera has an image in this frame: leave such a frame out')

    def _item(
        self,
        images: Mapping[str, np.ndarray | None],
        rig: Rig,
        ego2global: np.ndarray,
        seconds: float,
        can_bus: ArrayLike | None,
    ) -> dict[str, Any]:
        """Make what the pipeline has after reading the images of a frame."""
        present = {name: image for name, image in images.items() if image is not None}
        for name, image in present.items():
            rig.require_image(name, image)
        first = next(iter(present.values()))
        blank = np.zeros(first.shape, np.uint8)
        pixels = [present.get(name, blank) for name in self.inputs.cameras]
        return {
            'token': f'at {seconds:g} s',
            'scene_token': 'stream',
            'scene_name': 'stream',
            'frame_idx': 0,  # StreamPredictor counts where a detector fuses frames by their position
            'timestamp': seconds,
            'ego2global': ego2global,
            'can_bus': can_bus,
            'lidar2ego': rig.lidar2ego,
            'cameras': list(self.inputs.cameras),
            'img_paths': [''] * len(pixels),
            'ori_shape': first.shape[:2],
            'img': [image.astype(self.dtype, copy=False) for image in pixels],
            'lidar2img': np.stack(
                [rig.lidar2img(name) if name in present else SEES_NOTHING for name in self.inputs.cameras]
            ),
            'scale': self.inputs.image_size,
            'history': [],
            'box_type_3d': LiDARInstance3DBoxes,
            'box_mode_3d': Box3DMode.LIDAR,
        }


def _check_types(images: object, rig: object, state: object) -> None:
    """Refuse arguments of :meth:`FramePredictor.step` that are something else, such as another one's.

    Raises:
        InputError: saying what they are.
    """
    if not isinstance(rig, Rig):
        raise InputError(f'rig is a Rig of cameras, got {type(rig).__name__}: Rig.from_file reads one')
    if not isinstance(images, Mapping):
        raise InputError(f'images are a mapping of camera names to arrays, got {type(images).__name__}')
    if not isinstance(state, StreamState):
        raise InputError(
            f'state is the second of the two that step returns, or None where a drive begins, got '
            f'{type(state).__name__}'
        )


def _seconds(timestamp: float | None, pose: ArrayLike | None, state: StreamState) -> float:
    """Read a time, and compare it with that of the frame before.

    Raises:
        InputError: if it is missing beside a pose, is no time in seconds, or is not later.
    """
    if timestamp is None:
        if pose is not None:
            raise InputError('a frame with a pose needs its timestamp in seconds')
        return 0.0
    is_number = isinstance(timestamp, int | float | np.integer | np.floating)
    if not is_number or isinstance(timestamp, bool | np.timedelta64) or not -np.inf < timestamp < np.inf:
        remedy = ': give its timestamp()' if isinstance(timestamp, datetime) else ''
        raise InputError(f'timestamp is a number of seconds, got {timestamp!r}{remedy}')
    if abs(timestamp) > LATEST_SECONDS:
        raise InputError(f'timestamp {timestamp} looks like micro- or nanoseconds: give seconds')
    seconds = float(timestamp)
    before = None if state.history is None or pose is None else state.history.frame.timestamp
    if before is not None and seconds <= before:
        raise InputError(
            f'time runs backwards: a frame at {seconds} s came after one at {before} s; give frames in order, or '
            'state=None where a drive begins'
        )
    return seconds
