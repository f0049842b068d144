"""Exported files whose convolutions of backbone and neck compute in 8-bit integers."""

import importlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bevformer_plugin.models import Frame

from .onnx_export import require_libraries
from .onnx_network import OnnxNetwork

FEATURES = ('.img_backbone.', '.img_neck.')  # in names of weights
BETWEEN = ('Relu', 'Add', 'MaxPool')  # operators that stay in integers between two convolutions


def quantize_features(path: str | Path, target: str | Path, frames: Iterable[Tensor]) -> None:
    """Write a copy of an exported file whose image features are computed in 8-bit integers.

    Weights are rounded channel by channel, activations to the range that they have in the frames. Attention and heads
    stay in float32, and so do deformable convolutions.

    Args:
        path: of a file that ``tools/export.py`` wrote.
        target: of the copy, which has the same tensors and metadata.
        frames: images to calibrate on, each as :meth:`OnnxNetwork.step` takes them.

    Raises:
        FileNotFoundError: if the file does not exist.
        InputError: if libraries are missing, or the images do not fit the file.
    """
    require_libraries(('onnx', 'onnxruntime'), 'quantising ONNX files')
    onnx = importlib.import_module('onnx')
    quantization: Any = importlib.import_module('onnxruntime.quantization')
    reader = _ImageReader(OnnxNetwork(path), frames)
    model = onnx.load(str(path))
    logging.getLogger().disabled = True  # it asks for a preparation that the exporter has made
    try:
        quantization.quantize_static(
            model,
            str(target),
            reader,
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


class _ImageReader:
    """Gives onnxruntime's calibration the inputs of one frame after the other.

    What is quantised depends on the images alone, so the vehicle stands still and has no history.
    """

    def __init__(self, network: OnnxNetwork, frames: Iterable[Tensor]) -> None:
        self.network = network
        self.frames = iter(frames)
        identity = torch.eye(4, dtype=torch.float64)
        projections = identity.repeat(len(network.description.cameras), 1, 1)
        self.standing = Frame('to calibrate on', '', 0.0, projections, identity, torch.zeros(13, dtype=torch.float64))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next inputs, None after the last."""
        images = next(self.frames, None)
        if images is None:
            return None
        return self.network.inputs(images, self.standing, None)

    def __iter__(self) -> '_ImageReader':
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        inputs = self.get_next()
        if inputs is None:
            raise StopIteration
        return inputs
