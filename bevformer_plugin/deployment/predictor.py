"""Detection in streams of frames with a BEVFormer."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from torch import Tensor, nn

from bevformer_plugin.configuration import building, load_config
from bevformer_plugin.errors import InputError
from bevformer_plugin.layers import PillarHits
from bevformer_plugin.models import (
    BEVFormer,
    BEVFormerV2,
    BEVHistory,
    EncodedFrames,
    FeatureHistory,
    Frame,
)
from bevformer_plugin.weights import check_checkpoint, load_content, read_checkpoint

from .frame_predictor import FramePredictor, ModelInputs, NetworkOutput
from .heads import heads_of
from .keyframe_position import keyframe_position, keyframes_within
from .optimization import optimize_for_inference
from .stream_state import CameraView, StreamState, require_bev, require_features


class StreamPredictor(FramePredictor):
    """Detects objects in frames of somebody's own cameras with a BEVFormer.

    A BEVFormerV2 of several frames fuses keyframes half a second apart, as it was trained to: it takes a stream of
    those alone.

    Args:
        detector: with its weights, on the device it runs on.
        inputs: what it takes.
        optimize: run a copy of it after :func:`optimize_for_inference`, in bfloat16 where the device computes with it.

    Raises:
        InputError: if it predicts neither boxes nor a map.
    """

    def __init__(self, detector: BEVFormer, inputs: ModelInputs, optimize: bool = True) -> None:
        if optimize:
            optimized = optimize_for_inference(detector)
            self.detector, self._precision = optimized.detector, optimized.precision
        else:
            self.detector, self._precision = detector.eval(), nullcontext
            if detector.bev_encoder.cams_embeds.device.type == 'cpu':
                # As tools/test.py lays out weights, so that both give the same numbers.
                detector.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # not an overload
        self.detection_head, self.map_head = heads_of(self.detector)
        super().__init__(
            inputs,
            () if self.detection_head is None else inputs.classes,
            None if self.map_head is None else self.map_head.protocol,
        )
        preprocessor = self.detector.data_preprocessor
        assert isinstance(preprocessor, nn.Module)
        self.preprocessor = preprocessor

    @classmethod
    def from_checkpoint(
        cls, config: str | Path | Config, checkpoint: str | Path, device: str = 'auto', optimize: bool = True
    ) -> 'StreamPredictor':
        """Build the detector of a config and load its weights.

        Args:
            config: file or name of a config, see :func:`bevformer_plugin.configuration.load_config`, or a config.
            checkpoint: file with weights of the same model, checked as tools/test.py does.
            device: name of a device of torch; 'auto' is a GPU if there is one.
            optimize: see the class; the first frame then takes some seconds longer.

        Raises:
            FileNotFoundError: if a file does not exist.
            InputError: if config and checkpoint do not belong together, the model is no BEVFormer, or this machine has
                no such device.
        """
        cfg = config if isinstance(config, Config) else load_config(config)
        place = _device(device)
        inputs = ModelInputs.from_config(cfg)
        path = str(checkpoint)
        content = read_checkpoint(path)
        for remark in check_checkpoint(cfg, DescribedModel(inputs.metainfo), path, content):
            print_log(remark, logger='current')
        with building('model'):
            detector = MODELS.build(cfg.model)
        if not isinstance(detector, BEVFormer):
            raise InputError(
                f'model.type of the config is {type(detector).__name__}, and this predicts with BEVFormer'
            )
        load_content(detector, content, path, inputs.classes)
        detector.to(place)
        return cls(detector, inputs, optimize)

    def require_times(self, seconds: Sequence[float]) -> None:
        """Refuse a drive whose frames :meth:`step` will not take, before the first of them is read.

        Args:
            seconds: times of all frames, rising.

        Raises:
            InputError: if a BEVFormerV2 of several frames is given others than keyframes half a second apart.
        """
        if isinstance(self.detector, BEVFormerV2) and len(self.detector.frame_offsets) > 1:
            for before, after in pairwise(seconds):
                if after - before <= self.detector.max_time_gap:
                    keyframes_within(after - before)

    def detect(self, packed: Tensor, frame: Frame, state: StreamState) -> tuple[NetworkOutput, StreamState]:
        """Run the detector, see :meth:`FramePredictor.detect`."""
        if isinstance(self.detector, BEVFormerV2):
            return self._detect_among_keyframes(self.detector, packed, frame, state.history)
        encoder = self.detector.bev_encoder
        history = require_bev(state.history, encoder.grid.num_queries, encoder.cams_embeds.shape[-1])
        imgs = self.normalized(packed)
        image_hw = (imgs.shape[-2], imgs.shape[-1])
        view = state.view
        if view is None or not view.holds_for(frame, image_hw):
            view = CameraView(frame.lidar2img, image_hw, encoder.hits([frame], image_hw))
        output, after = self.run_network(imgs, frame, history, view.hits)
        return output, StreamState(after, view)

    def _detect_among_keyframes(
        self, detector: BEVFormerV2, packed: Tensor, frame: Frame, history: BEVHistory | FeatureHistory | None
    ) -> tuple[NetworkOutput, StreamState]:
        """Run a detector that keeps the camera features of the last keyframes instead of a BEV."""
        channels = detector.bev_encoder.cams_embeds.shape[-1]
        kept = require_features(history, detector.num_levels, detector.num_cameras, channels)
        if len(detector.frame_offsets) > 1:
            frame = replace(frame, index=keyframe_position(frame, kept, detector.max_time_gap))
        imgs = self.normalized(packed)
        with self._precision():
            encoded = detector.encode(imgs, [frame], [kept])
            output = self._decoded(encoded)
        return output, StreamState(encoded.histories()[0])

    def normalized(self, packed: Tensor) -> Tensor:
        """Bring packed images (1, N, 3, H, W) to the device, normalised and padded."""
        return self.preprocessor({'inputs': {'img': [packed]}, 'data_samples': None})['inputs']['imgs'][:, 0]

    def run_network(
        self, imgs: Tensor, frame: Frame, history: BEVHistory | None, hits: PillarHits
    ) -> tuple[NetworkOutput, BEVHistory | None]:
        """Run the network alone.

        Args:
            imgs: (1, N, 3, H, W) normalised and padded.
            frame: their calibration, pose and time.
            history: what the frame before left behind.
            hits: the pillars that the cameras see.

        Returns:
            What it found, and what the frame leaves behind.
        """
        with self._precision():
            encoded = self.detector.encode(imgs, [frame], [history], hits)
            output = self._decoded(encoded)
        return output, encoded.histories()[0]

    def _decoded(self, encoded: EncodedFrames) -> NetworkOutput:
        """Run the heads on one encoded frame."""
        found = None if self.detection_head is None else self.detection_head.predict(encoded)
        drawn = None if self.map_head is None else self.map_head.predict(encoded)
        instances = None if found is None else found['pred_instances_3d'][0]
        assert instances is None or isinstance(instances, InstanceData)
        return NetworkOutput.of(instances, None if drawn is None else drawn['pred_map'][0].get('data'))


def _device(name: str | torch.device) -> torch.device:
    """Return a device that this machine has.

    Raises:
        InputError: if it has none of that name.
    """
    try:
        device = torch.device(get_device() if name == 'auto' else name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f'this machine has no device {name!r} ({reason}): give cpu, or auto') from None
    return device


@dataclass(frozen=True)
class DescribedModel:
    """A metainfo without frames, to compare with a checkpoint."""

    metainfo: dict[str, Any]

    def __len__(self) -> int:
        return 0

    def __getitem__(self, idx: int, /) -> object:
        raise IndexError(idx)
