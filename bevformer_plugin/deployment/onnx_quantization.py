"""Exported files whose convolutions of backbone and neck compute in 8-bit integers."""

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bevformer_plugin.errors import InputError
from bevformer_plugin.models import BEVHistory, Frame

from .onnx_export import require_libraries
from .onnx_network import OnnxNetwork

FEATURES = ('.img_backbone.', '.img_neck.')  # in names of weights
BETWEEN = ('Relu', 'Add', 'MaxPool')  # operators that stay in integers between two convolutions


def quantize_features(path: str | Path, target: str | Path, frames: Sequence[tuple[Tensor, Frame]]) -> None:
    """Write a copy of an exported file whose image features are computed in 8-bit integers.

    Weights are rounded channel by channel, activations to the range that they have in the frames. Attention and heads
    stay in float32, and so do deformable convolutions.

    Args:
        path: of a file that ``tools/export.py`` wrote.
        target: of the copy, which has the same tensors and metadata.
        frames: to calibrate on, in the order of a drive: images as :meth:`OnnxNetwork.step` takes them, and frames.

    Raises:
        FileNotFoundError: if the file does not exist.
        InputError: if there are no frames, or libraries are missing.
    """
    require_libraries(('onnx', 'onnxruntime'), 'quantising ONNX files')
    if not frames:
        raise InputError('quantisation needs frames to calibrate on, got none')
    onnx = importlib.import_module('onnx')
    quantization: Any = importlib.import_module('onnxruntime.quantization')
    network = OnnxNetwork(path)
    model = onnx.load(str(path))
    logging.getLogger().disabled = True  # it asks for a preparation that the exporter has made
    try:
        quantization.quantize_static(
            model,
            str(target),
            _FrameReader(network, frames),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_quantize=_feature_nodes(model),
            op_types_to_quantize=['Conv', *BETWEEN],
        )
    finally:
        logging.getLogger().disabled = False


def _feature_nodes(model: Any) -> list[str]:
    """Name the convolutions of backbone and neck, and what lies between them."""
    names, computed = [], set()
    for node in model.graph.node:
        convolves = node.op_type == 'Conv' and any(part in name for part in FEATURES for name in node.input)
        if convolves or (node.op_type in BETWEEN and computed & set(node.input)):
            names.append(node.name)
            computed.update(node.output)
    return names


class _FrameReader:
    """Gives onnxruntime's calibration the inputs of one frame after the other, each with the BEV of the one before."""

    def __init__(self, network: OnnxNetwork, frames: Sequence[tuple[Tensor, Frame]]) -> None:
        self.network = network
        self.frames = list(frames)
        self.history: BEVHistory | None = None

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next inputs, None after the last."""
        if not self.frames:
            return None
        images, frame = self.frames.pop(0)
        inputs = self.network.inputs(images, frame, self.history)
        _, self.history = self.network.step(images, frame, self.history)
        return inputs

    def __iter__(self) -> '_FrameReader':
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        inputs = self.get_next()
        if inputs is None:
            raise StopIteration
        return inputs
