"""An exported file in onnxruntime: one frame in, raw scores, boxes and map out, with the state passed explicitly."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor

from bevformer_plugin.errors import InputError
from bevformer_plugin.maps import MapProtocol, find_protocol
from bevformer_plugin.models import (
    BEVHistory,
    EgoAlignment,
    EncodedFrames,
    Frame,
    NMSFreeCoder,
    decode_instances,
    map_to_lidar,
    usable_history,
)

from .onnx_description import MAP_TO_LIDAR, MLPERF, RAW, OnnxDescription
from .onnx_export import PUBLISHED_ORDER, PUBLISHED_SIGN, require_libraries

PROVIDERS = ('CUDAExecutionProvider', 'CPUExecutionProvider')  # of onnxruntime, the first that it has


@dataclass(frozen=True)
class RawOutput:
    """Scores and boxes of the last layer of the decoder, before any is chosen, and the map.

    Attributes:
        scores: (M, classes) float32 logits; M is 0 of a file without boxes.
        boxes: (M, 10) network boxes, as of :class:`bevformer_plugin.models.DetectionOutputs`.
        map: (classes, rows, columns) float32 probabilities; None of a file without a map.
    """

    scores: Tensor
    boxes: Tensor
    map: Tensor | None


class OnnxNetwork:
    """Runs an exported file.

    Args:
        path: of the file.
        threads: that compute; None takes as many as PyTorch uses.

    Attributes:
        description: what the file says of itself.
        map_protocol: of the file's map; None without a map.
        session: onnxruntime's session.

    Raises:
        FileNotFoundError: if the file does not exist.
        InputError: if onnxruntime is not installed or cannot read the file, or ``tools/export.py`` has not written it.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f'ONNX file {path} does not exist')
        require_libraries(('onnxruntime',), 'running ONNX files')
        runtime = importlib.import_module('onnxruntime')
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3  # errors alone
        providers = [name for name in PROVIDERS if name in runtime.get_available_providers()]
        try:
            self.session: Any = runtime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # its kinds of errors share no class of their own
            raise InputError(f'onnxruntime cannot run {path}: {" ".join(str(error).split())}') from error
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.description = OnnxDescription.from_metadata(metadata, str(path))
        described, (width, height) = self.description, self.description.image_size
        self.image_shape = (len(described.cameras), 3, height, width)
        if described.images != RAW:
            self.image_shape = (len(described.cameras), 3, described.padded_size[1], described.padded_size[0])
        self.alignment = EgoAlignment(wrap_heading=described.wrap_heading)
        self.box_coder = NMSFreeCoder(described.post_center_range, described.max_num) if described.classes else None
        self.map_protocol = None if described.map_protocol is None else _protocol(described, str(path))
        self.bev_shape = [size for size in self.session.get_inputs()[1].shape if size != 1]
        self.warned_of: set[str] = set()  # reasons why history was not used

    def step(self, images: Tensor, frame: Frame, history: BEVHistory | None) -> tuple[RawOutput, BEVHistory | None]:
        """Run the network on one frame.

        Args:
            images: (N, 3, H, W), uint8 BGR or normalised and padded, as the description says.
            frame: calibration for images of the size before padding, pose and time.
            history: what the previous frame left behind; one that does not count is ignored, see
                :func:`bevformer_plugin.models.bev.usable_history`.

        Returns:
            Scores, boxes and map, and the state for the next frame, which is None if the BEV is not finite.

        Raises:
            InputError: if the images are others than the file was written for, or the cameras see more of the BEV than
                it has room for.
        """
        described = self.description
        history = (
            usable_history(history, frame, described.max_time_gap, self.warned_of) if described.use_history else None
        )
        bev, *values = self.session.run(list(described.tensors.outputs), self.inputs(images, frame, history))
        drawn = None if self.map_protocol is None else torch.from_numpy(values.pop())
        self._refuse_overflow(values.pop(), frame)
        scores, boxes = values if values else (np.zeros((0, 0), np.float32), np.zeros((0, 10), np.float32))
        if described.profile == MLPERF:
            bev = bev[:, 0]
            scores, boxes = scores[-1, 0], boxes[-1, 0][:, PUBLISHED_ORDER] * np.array(PUBLISHED_SIGN, np.float32)
        (after,) = EncodedFrames(torch.from_numpy(bev)[None], [], [frame]).histories()
        return RawOutput(torch.from_numpy(scores), torch.from_numpy(boxes), drawn), after

    def inputs(self, images: Tensor, frame: Frame, history: BEVHistory | None) -> dict[str, np.ndarray]:
        """Make the arrays that the file takes, by name; arguments as of :meth:`step`, with a history that counts.

        Raises:
            InputError: for images of another shape or type, or a frame without ``lidar2ego`` whose map is in the
                vehicle's frame.
        """
        self._check_images(images, frame)
        motion = self.alignment.motion([frame], [history])
        vector = torch.cat([motion.translation[0], frame.can_bus, motion.heading, motion.turn]).float().numpy()
        bev = np.zeros(self.bev_shape, np.float32) if history is None else history.bev_embed.cpu().numpy()
        projections = frame.lidar2img.float().numpy()
        exists = np.full(1, history is not None, np.float32)
        pixels = images.numpy()
        if self.description.profile == MLPERF:
            values = (pixels[None], bev[:, None], exists.reshape(()), vector, projections[None])
        elif self.description.images == RAW:
            values = (np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), bev, exists, vector, projections)
        else:
            values = (pixels, bev, exists, vector, projections)
        if MAP_TO_LIDAR in self.description.tensors.inputs:
            assert self.map_protocol is not None
            values = (*values, map_to_lidar(self.map_protocol, frame).float().numpy())
        return dict(zip(self.description.tensors.inputs, values, strict=True))

    def decode(self, raw: RawOutput) -> InstanceData | None:
        """Choose the best boxes: ``bboxes_3d`` (LiDAR, bottom centre, velocities), ``scores_3d`` and ``labels_3d``.

        Returns:
            None of a file without boxes.
        """
        return None if self.box_coder is None else decode_instances(self.box_coder, raw.scores, raw.boxes)

    def _check_images(self, images: Tensor, frame: Frame) -> None:
        wanted = torch.uint8 if self.description.images == RAW else torch.float32
        if tuple(images.shape) != self.image_shape or images.dtype != wanted:
            raise InputError(
                f'images of sample {frame.name} are {tuple(images.shape)} {images.dtype}, the file was written for '
                f'{self.image_shape} {wanted}: cameras {", ".join(self.description.cameras)}, images of '
                f'{self.description.image_size[0]} x {self.description.image_size[1]} pixels. Export again for others'
            )

    def _refuse_overflow(self, overflow: np.ndarray, frame: Frame) -> None:
        """Raise an InputError if some of what the cameras see has been left out."""
        hits, cameras = overflow.tolist()
        if not hits and not cameras:
            return
        room = self.description
        problems = [
            *([f'a camera sees {room.hits_per_camera + hits} pillars of the BEV'] if hits else []),
            *([f'{room.cameras_per_pillar + cameras} cameras see one pillar'] if cameras else []),
        ]
        raise InputError(
            f'the file has no room for the calibration of sample {frame.name}: {" and ".join(problems)}, it was '
            f'written for {room.hits_per_camera} pillars a camera and {room.cameras_per_pillar} cameras a pillar. '
            'Export again with this calibration'
        )


def _protocol(description: OnnxDescription, path: str) -> MapProtocol:
    """Find the protocol of a file's map.

    Raises:
        InputError: this version has no such protocol, or one of other classes.
    """
    protocol = find_protocol(description.map_protocol)
    if description.map_classes != protocol.class_names:
        raise InputError(
            f'{path} has a map of {", ".join(description.map_classes)}, protocol {protocol.name!r} of this version '
            f'has {", ".join(protocol.class_names)}: export it again'
        )
    return protocol
