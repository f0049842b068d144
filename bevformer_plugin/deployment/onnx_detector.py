"""An exported file in the place of a detector, so that the tools test it as they test a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from bevformer_plugin.errors import InputError
from bevformer_plugin.models import BEVFormerDataPreprocessor, BEVHistory, Frame

from .onnx_description import RAW, OnnxDescription
from .onnx_network import OnnxNetwork


class RawImages(nn.Module):
    """Passes images on unchanged, for an exported file that normalises and pads them itself."""

    def forward(self, data: dict, training: bool = False) -> dict:
        """Take what :meth:`BEVFormerDataPreprocessor.forward` takes; ``imgs`` is a list of (T, N, 3, H, W).

        Raises:
            InputError: if the images were distorted.
        """
        if 'img_range' in data['inputs']:
            raise InputError(
                'an exported file cannot detect in images whose colours were distorted: leave that out of the pipeline'
            )
        return {'inputs': {'imgs': data['inputs']['img']}, 'data_samples': data['data_samples']}


def preprocessor_for(description: OnnxDescription) -> RawImages | BEVFormerDataPreprocessor:
    """Build what brings images, as a pipeline loads them, into the form that an exported file takes.

    The images of frame t of sample b are ``imgs[b][t]`` of what it returns.
    """
    if description.images == RAW:
        return RawImages()
    mean, std = list(description.mean), list(description.std)
    return BEVFormerDataPreprocessor(mean, std, description.pad_size_divisor, description.bgr_to_rgb)


class OnnxDetector(nn.Module):
    """Runs an exported file with the interface of a :class:`bevformer_plugin.models.BEVFormer` in prediction.

    Args:
        path: of a file that ``tools/export.py`` wrote.

    Raises:
        FileNotFoundError: if the file does not exist.
        InputError: as :class:`OnnxNetwork`.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.network = OnnxNetwork(path)
        self.data_preprocessor = preprocessor_for(self.network.description)
        self.streams: dict[str, BEVHistory] = {}

    def forward(
        self, inputs: dict, data_samples: list[Det3DDataSample], mode: str = 'predict'
    ) -> list[Det3DDataSample]:
        """Predict, called as MMEngine calls a model.

        Raises:
            InputError: for another mode than 'predict'.
        """
        if mode != 'predict':
            raise InputError(f"an exported file is for inference: its mode is 'predict', not {mode!r}")
        return self.predict(inputs, data_samples)

    def predict(self, batch_inputs_dict: dict, batch_data_samples: list[Det3DDataSample]) -> list[Det3DDataSample]:
        """Predict as :meth:`BEVFormer.predict`, sample by sample.

        Raises:
            InputError: if images or calibration are others than the file was written for.
        """
        cameras = len(self.network.description.cameras)
        streams: dict[str, BEVHistory] = {}
        for queue, sample in zip(batch_inputs_dict['imgs'], batch_data_samples, strict=True):
            frame = Frame.from_meta(sample.metainfo, cameras)
            raw, after = self.network.step(_only_frame(queue), frame, self.streams.get(frame.scene))
            if after is not None:
                streams[frame.scene] = after
            found = self.network.decode(raw)
            if found is not None:
                sample.pred_instances_3d = found
            if raw.map is not None:
                sample.pred_map = PixelData(data=raw.map)
            sample.pred_instances = InstanceData()  # boxes in images, which MMDetection3D's evaluators look for
        self.streams = streams
        return batch_data_samples


def _only_frame(queue: Sequence[Tensor] | Tensor) -> Tensor:
    """Take the frame (N, 3, H, W) of a queue of one."""
    if len(queue) != 1:
        raise InputError(f'predict streams frame by frame but got queues of {len(queue)} frames')
    return torch.as_tensor(queue[0]).cpu()
