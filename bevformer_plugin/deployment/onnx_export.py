"""Writing a detector as an ONNX file that stock runtimes run: no custom operator, no hidden state."""

import importlib
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import bevformer_plugin
from bevformer_plugin.atomic_write import atomic_write
from bevformer_plugin.errors import InputError
from bevformer_plugin.models import BEVFormer

from .heads import heads_of
from .onnx_description import DEFAULT, MLPERF, NORMALIZED, RAW, TENSORS, OnnxDescription
from .static_attention import HitBudget
from .static_detector import TURN, ImagePreparation, StaticDetector, padded_hw, preprocessor_of

# The exporter writes 18 and converts from there. From 20 on GridSample's mode is called "linear", which the parser of
# TensorRT up to 11.1 reads as nearest.
OPSETS = (18, 19)
LIBRARIES = ('onnx', 'onnxscript')
PUBLISHED_ORDER = [0, 1, 3, 2, 4, 5, 7, 6, 8, 9]  # width and length, sine and cosine change places
PUBLISHED_SIGN = [1.0] * 6 + [-1.0, -1.0, 1.0, 1.0]


@dataclass(frozen=True)
class OnnxForm:
    """In which form a detector is written.

    Attributes:
        opset: version of ONNX's operators, one of :data:`OPSETS`.
        profile: 'default', or 'mlperf' for names and shapes of MLPerf Automotive's benchmark.
        images: 'raw' or 'normalized', see :class:`OnnxDescription`.

    Raises:
        InputError: for values that do not go together.
    """

    opset: int = 18
    profile: str = DEFAULT
    images: str = RAW

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise InputError(
                f'opset is one of {", ".join(map(str, OPSETS))}, got {self.opset}: below, sampling of feature maps is '
                "not written, and from 20 on TensorRT's parser reads its mode as nearest without a word"
            )
        if self.profile not in TENSORS:
            raise InputError(f'profile is one of {", ".join(TENSORS)}, got {self.profile!r}')
        if self.images not in (RAW, NORMALIZED):
            raise InputError(f'images is raw or normalized, got {self.images!r}')
        if self.profile == MLPERF and self.images == RAW:
            raise InputError('profile mlperf takes images that are normalised already: give --images normalized')


@dataclass(frozen=True)
class ModelSurroundings:
    """What an exported file has to tell its users and the detector itself does not know.

    Attributes:
        image_size: (W, H) of the images before padding.
        cameras: names in the order of the images.
        classes: names in the order of the scores.
        frame: of the boxes, 'lidar' or 'vehicle'.
        can_bus: rule by which CAN-bus messages were chosen, 'none' without.
    """

    image_size: tuple[int, int]
    cameras: tuple[str, ...]
    classes: tuple[str, ...]
    frame: str = 'lidar'
    can_bus: str = 'none'


@dataclass(frozen=True)
class ExportReport:
    """What has been written.

    Attributes:
        description: the file's metadata.
        nodes: number of operators.
        megabytes: size of the file.
        seconds: that it took.
    """

    description: OnnxDescription
    nodes: int
    megabytes: float
    seconds: float


class DefaultGraph(nn.Module):
    """Names and shapes of the profile 'default'; the outputs are those of the last layer of the decoder."""

    def __init__(self, detector: StaticDetector, preparation: ImagePreparation | None) -> None:
        super().__init__()
        self.detector = detector
        self.preparation = preparation

    def forward(
        self,
        images: Tensor,
        prev_bev: Tensor,
        use_prev_bev: Tensor,
        motion: Tensor,
        lidar2img: Tensor,
        map_to_lidar: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Predict in one frame.

        Args:
            images: as the :class:`OnnxDescription` says.
            prev_bev: (Q, C) the output ``bev`` of the previous frame; its values do not matter where there is none.
            use_prev_bev: (1,) 1 or 0, whether there is a previous frame.
            motion: (18,), see :meth:`.static_detector.StaticEgoAlignment.moved`.
            lidar2img: (N, 4, 4) LiDAR metres to homogeneous pixels of images of the size before padding.
            map_to_lidar: (2, 3) for maps in the vehicle's frame, see :func:`bevformer_plugin.models.map_to_lidar`.

        Returns:
            bev (Q, C); of a detector with boxes scores (M, classes) as logits and boxes (M, 10) as
            :class:`bevformer_plugin.models.DetectionOutputs` has them; overflow (2,) as of :class:`StaticHits`; of a
            detector with a map its probabilities (classes, rows, columns).
        """
        imgs = images[None] if self.preparation is None else self.preparation(images)
        plane = None if map_to_lidar is None else map_to_lidar[None]
        found = self.detector(imgs, prev_bev[None], use_prev_bev, motion, lidar2img[None], plane)
        boxes = () if found.detections is None else (found.detections.cls_scores, found.detections.bbox_preds)
        drawn = () if found.map is None else (found.map,)
        return found.bev[0], *(of_layers[-1, 0] for of_layers in boxes), found.overflow, *drawn


class MlperfGraph(nn.Module):
    """Names and shapes of MLPerf Automotive's benchmark, boxes in the published order and convention."""

    sign: Tensor

    def __init__(self, detector: StaticDetector) -> None:
        super().__init__()
        self.detector = detector
        self.register_buffer('sign', torch.tensor(PUBLISHED_SIGN))

    def forward(
        self, img: Tensor, prev_bev: Tensor, use_prev_bev: Tensor, can_bus: Tensor, lidar2img: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Detect in one frame.

        Args:
            img: (1, N, 3, Hp, Wp) normalised and padded.
            prev_bev: (Q, 1, C).
            use_prev_bev: () 1 or 0.
            can_bus: (18,), its translation and last value relative to the previous frame.
            lidar2img: (1, N, 4, 4).

        Returns:
            The BEV (Q, 1, C), logits (L, 1, M, classes) and boxes (L, 1, M, 10) of all decoder layers, overflow (2,).
        """
        exists = use_prev_bev.reshape(1)
        bev, outputs, _, overflow = self.detector(img, prev_bev.transpose(0, 1), exists, can_bus, lidar2img)
        boxes = torch.stack([outputs.bbox_preds[..., value] for value in PUBLISHED_ORDER], dim=-1) * self.sign
        return bev.transpose(0, 1), outputs.cls_scores, boxes, overflow


def export_onnx(
    detector: BEVFormer, path: str | Path, surroundings: ModelSurroundings, budget: HitBudget, form: OnnxForm
) -> ExportReport:
    """Write a detector as an ONNX file, which holds the weights as well.

    Args:
        detector: with its weights; it stays as it is.
        path: of the file.
        surroundings: what it is used with.
        budget: how many hits of cameras and pillars the file has room for, see :func:`.hit_budget.budget_for`.
        form: in which form.

    Raises:
        InputError: if onnx or onnxscript are not installed, or a part of the detector cannot be written.
    """
    require_libraries(LIBRARIES, 'writing ONNX files')
    begin = time.perf_counter()
    cameras, size = detector.num_cameras, surroundings.image_size
    if len(surroundings.cameras) != cameras:
        raise InputError(
            f'the model was built for num_cameras={cameras}, got {len(surroundings.cameras)} names of cameras: '
            f'{", ".join(surroundings.cameras)}'
        )
    if form.profile == MLPERF:
        _require_boxes_alone(detector)
    graph, inputs = _graph(detector, (size[1], size[0]), budget, form)
    description = _describe(detector, surroundings, budget, form)
    names = description.tensors
    with quiet_exporter(), torch.no_grad():
        try:
            program = torch.onnx.export(
                graph.eval(),
                inputs,
                dynamo=True,
                opset_version=form.opset,
                input_names=list(names.inputs),
                output_names=list(names.outputs),
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = error.__cause__ or error
            raise InputError(f'the detector cannot be written as ONNX: {" ".join(str(reason).split())}') from error
    assert program is not None
    _strip_traces(program.model)
    program.model.metadata_props.update(description.to_metadata())
    program.model.producer_name, program.model.producer_version = 'bevformer_plugin', bevformer_plugin.__version__
    content = _checked(program.model_proto, form.opset)
    with atomic_write(path) as file:
        file.write(content)
    return ExportReport(description, len(program.model.graph), len(content) / 1e6, time.perf_counter() - begin)


def _require_boxes_alone(detector: BEVFormer) -> None:
    """Raise an InputError for a detector that does not fit the profile 'mlperf', which has boxes and nothing else."""
    detection, of_map = heads_of(detector)
    if detection is None:
        raise InputError('profile mlperf has boxes, and the detector predicts the map alone: take profile default')
    if of_map is not None:
        name = next(name for name, head in detector.heads.items() if head is of_map)
        raise InputError(
            f'profile mlperf has no place for the map of heads.{name}: take profile default, or leave the map out '
            f'with --cfg-options model.heads.{name}=None'
        )


def _graph(
    detector: BEVFormer, image_hw: tuple[int, int], budget: HitBudget, form: OnnxForm
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Build the module that is written, and inputs of its shapes."""
    preprocessor = preprocessor_of(detector)
    static = StaticDetector(detector, padded_hw(preprocessor, image_hw), budget)
    cameras, queries = detector.num_cameras, static.grid.num_queries
    channels = detector.bev_encoder.cams_embeds.shape[-1]
    motion, lidar2img = torch.zeros(TURN + 1), torch.eye(4).expand(cameras, 4, 4).contiguous()
    normalized = torch.zeros(cameras, 3, *static.image_hw)
    if form.profile == MLPERF:
        inputs = (normalized[None], torch.zeros(queries, 1, channels), torch.zeros(()), motion, lidar2img[None])
        return MlperfGraph(static), inputs
    raw = form.images == RAW
    images = torch.zeros(cameras, *image_hw, 3, dtype=torch.uint8) if raw else normalized
    graph = DefaultGraph(static, ImagePreparation(preprocessor, image_hw) if raw else None)
    inputs = (images, torch.zeros(queries, channels), torch.zeros(1), motion, lidar2img)
    if static.map_head is not None and static.map_head.protocol.frame != 'lidar':
        inputs = (*inputs, torch.eye(2, 3))
    return graph, inputs


def _describe(
    detector: BEVFormer, surroundings: ModelSurroundings, budget: HitBudget, form: OnnxForm
) -> OnnxDescription:
    preprocessor, grid = preprocessor_of(detector), detector.bev_encoder.grid
    width, height = surroundings.image_size
    padded = padded_hw(preprocessor, (height, width))
    detection, of_map = heads_of(detector)
    protocol = None if of_map is None else of_map.protocol
    x_min, y_min, _, x_max, y_max, _ = (0.0,) * 6 if protocol is None else protocol.grid.point_cloud_range
    return OnnxDescription(
        bevformer_plugin=bevformer_plugin.__version__,
        profile=form.profile,
        images=form.images,
        image_size=(width, height),
        padded_size=(padded[1], padded[0]),
        mean=tuple(preprocessor.mean.flatten().tolist()),
        std=tuple(preprocessor.std.flatten().tolist()),
        pad_size_divisor=int(preprocessor.pad_size_divisor),
        bgr_to_rgb=bool(preprocessor._channel_conversion),
        cameras=surroundings.cameras,
        classes=() if detection is None else surroundings.classes,
        frame=surroundings.frame,
        can_bus=surroundings.can_bus,
        bev_grid=(grid.bev_h, grid.bev_w),
        point_cloud_range=grid.point_cloud_range,
        post_center_range=() if detection is None else detection.box_coder.post_center_range,
        max_num=0 if detection is None else detection.box_coder.max_num,
        use_history=detector.use_history,
        max_time_gap=detector.max_time_gap,
        wrap_heading=detector.bev_encoder.ego_alignment.wrap_heading,
        hits_per_camera=budget.hits,
        cameras_per_pillar=budget.cameras,
        map_protocol=None if protocol is None else protocol.name,
        map_classes=() if protocol is None else protocol.class_names,
        map_frame=None if protocol is None else protocol.frame,
        map_extent=() if protocol is None else (x_min, y_min, x_max, y_max),
    )


def _strip_traces(model: Any) -> None:
    """Remove what the exporter notes at every node and value: lines of code and paths of this machine."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for output in node.outputs:
            output.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()


def _checked(model: Any, opset: int) -> bytes:
    """Return the bytes of a model that every runtime can read.

    Raises:
        InputError: if it needs operators beyond those of ONNX itself.
    """
    onnx = importlib.import_module('onnx')
    onnx.checker.check_model(model, full_check=True)
    foreign = sorted(
        {f'{node.domain}::{node.op_type}' for node in model.graph.node if node.domain not in ('', 'ai.onnx')}
    )
    if foreign or model.functions:
        raise InputError(f'the detector needs operators that are not in ONNX: {", ".join(foreign) or "functions"}')
    written = {entry.version for entry in model.opset_import if entry.domain in ('', 'ai.onnx')}
    if written != {opset}:
        raise InputError(
            f'the file has opset {sorted(written)} although {opset} was asked for: ask for {max(written)}'
        )
    return model.SerializeToString()


def require_libraries(names: tuple[str, ...], what: str) -> None:
    """Refuse to go on without libraries that only this part of the package needs.

    Raises:
        InputError: naming those that are missing, and how to install them.
    """
    missing = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise InputError(
            f'{what} needs {", ".join(missing)}, which cannot be imported: pip install "bevformer_plugin[onnx]", or '
            f'pip install {" ".join(missing)}'
        )


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence the exporter's notes on libraries that are not there and on constants that it leaves as they are."""
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
