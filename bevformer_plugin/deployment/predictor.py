"""Detection in streams of frames with a BEVFormer."""

from contextlib import nullcontext
from dataclasses import dataclass
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
from bevformer_plugin.models import BEVFormer, BEVFormerV2, BEVHistory, Frame
from bevformer_plugin.weights import check_checkpoint, load_content, read_checkpoint

from .frame_predictor import CameraView, FramePredictor, ModelInputs, NetworkOutput, StreamState
from .heads import heads_of
from .optimization import optimize_for_inference


class StreamPredictor(FramePredictor):
    """Detects objects in frames of somebody's own cameras with a BEVFormer.

    Args:
        detector: with its weights, on the device it runs on.
        inputs: what it takes.
        optimize: run a copy of it after :func:`optimize_for_inference`, in bfloat16 where the device computes with it.

    Raises:
        InputError: if it predicts neither boxes nor a map, or is a BEVFormerV2.
    """

    def __init__(self, detector: BEVFormer, inputs: ModelInputs, optimize: bool = True) -> None:
        if isinstance(detector, BEVFormerV2):
            raise InputError(
                'model.type is BEVFormerV2, which fuses keyframes half a second apart by their numbers, and not '
                'frames of any time: test it with tools/test.py, or take a BEVFormer'
            )
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

    def detect(self, packed: Tensor, frame: Frame, state: StreamState) -> tuple[NetworkOutput, StreamState]:
        """Run the detector, see :meth:`FramePredictor.detect`."""
        if state.history is not None:
            self._check_history(state.history)
        imgs = self.normalized(packed)
        image_hw = (imgs.shape[-2], imgs.shape[-1])
        view = state.view
        if view is None or not view.holds_for(frame, image_hw):
            view = CameraView(frame.lidar2img, image_hw, self.detector.bev_encoder.hits([frame], image_hw))
        output, history = self.run_network(imgs, frame, state.history, view.hits)
        return output, StreamState(history, view)

    def _check_history(self, history: BEVHistory) -> None:
        """Refuse what a model with another BEV left behind.

        Raises:
            InputError: with both sizes.
        """
        encoder = self.detector.bev_encoder
        own, found = (encoder.grid.num_queries, encoder.cams_embeds.shape[-1]), tuple(history.bev_embed.shape)
        if found != own:
            raise InputError(
                f'the state is that of another model: its BEV has {found[0]} cells of {found[1]} channels, this '
                f'model {own[0]} of {own[1]}; begin with state=None'
            )

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
            found = None if self.detection_head is None else self.detection_head.predict(encoded)
            drawn = None if self.map_head is None else self.map_head.predict(encoded)
        instances = None if found is None else found['pred_instances_3d'][0]
        assert instances is None or isinstance(instances, InstanceData)
        output = NetworkOutput.of(instances, None if drawn is None else drawn['pred_map'][0].get('data'))
        return output, encoded.histories()[0]


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
