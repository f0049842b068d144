"""Detection in streams of frames with an exported file."""

from pathlib import Path

from torch import Tensor

from bevformer_plugin.models import Frame

from .frame_predictor import FramePredictor, ModelInputs, NetworkOutput
from .onnx_detector import preprocessor_for
from .onnx_network import OnnxNetwork
from .stream_state import StreamState, require_bev

# What an exported file knows of loading: images are resized to its size, and nothing else happens to them.
PIPELINE = ({'type': 'LoadMultiViewImages'}, {'type': 'ResizeMultiView'}, {'type': 'PackTemporalInputs'})


class OnnxPredictor(FramePredictor):
    """Detects objects in frames of somebody's own cameras with an exported file, in onnxruntime.

    Args:
        path: of a file that ``tools/export.py`` wrote.
        threads: that compute; None takes as many as PyTorch uses.

    Raises:
        FileNotFoundError: if the file does not exist.
        InputError: as :class:`OnnxNetwork`.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self.network = OnnxNetwork(path, threads)
        described = self.network.description
        inputs = ModelInputs(described.classes, described.cameras, described.image_size, PIPELINE)
        super().__init__(inputs, described.classes, self.network.map_protocol)
        self.preprocessor = preprocessor_for(described)

    def detect(self, packed: Tensor, frame: Frame, state: StreamState) -> tuple[NetworkOutput, StreamState]:
        """Run the file, see :meth:`FramePredictor.detect`."""
        history = require_bev(state.history, *self.network.bev_shape)
        imgs = self.preprocessor({'inputs': {'img': [packed]}, 'data_samples': None})['inputs']['imgs']
        raw, after = self.network.step(imgs[0][0], frame, history)
        return NetworkOutput.of(self.network.decode(raw), raw.map), StreamState(after)
