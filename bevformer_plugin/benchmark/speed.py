"""How long a detector takes, part by part, beside the plain formulation of its attentions."""

import statistics
import tempfile
from contextlib import AbstractContextManager, ExitStack, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from mmdet3d.registry import DATASETS, MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from bevformer_plugin.deployment import (
    OptimizedDetector,
    computes_in_bfloat16,
    keep_freed_memory,
    optimize_for_inference,
)
from bevformer_plugin.errors import InputError
from bevformer_plugin.models import BEVFormer, BEVHistory, CameraFeatures, DetectionHead
from bevformer_plugin.ops import backend_name, set_attention_backend, set_deform_conv_backend
from bevformer_plugin.seeding import seeded_generators
from bevformer_plugin.weights import load_weights

from .fresh_process import FreshProcess
from .machine import describe_machine
from .peak_memory import measure_peak
from .plain_formulation import PlainEncoder
from .timing import timed
from .worlds import make_world

PLAIN, OURS, OPTIMIZED_FLOAT32, OPTIMIZED = 'plain', 'ours', 'optimised, float32', 'optimised, bfloat16'
COMPILED_FLOAT32, COMPILED = 'compiled, float32', 'compiled, bfloat16'
TRAINING = 'training step'
DETECTION = 'detection'  # the head that is timed


@dataclass(frozen=True)
class Frames:
    """Two frames of a scene.

    Attributes:
        imgs: (1, 2, N, 3, H, W) normalised and padded.
        sample: of the second frame, with its boxes; ``metainfo['history']`` holds the meta of the first.
    """

    imgs: Tensor
    sample: Det3DDataSample

    @property
    def image_hw(self) -> tuple[int, int]:
        """Padded height and width of the images, in pixels."""
        return self.imgs.shape[-2], self.imgs.shape[-1]


def benchmark_speed(
    cfg: Config,
    checkpoint: str | None = None,
    data_root: str | None = None,
    rounds: int = 5,
    training: bool = True,
    device: str = 'auto',
    compiled: bool = False,
) -> dict:
    """Run a config's detector in several versions over the same frame, which has history.

    Versions: the plain formulation of encoder and decoder (``grid_sample``, loops over samples and cameras, padding
    to the longest list; images and weights with their channels first; deformable convolutions by ``grid_sample`` as
    well); the detector as ``tools/test.py`` runs it, and trained as ``tools/train.py`` does; after
    :func:`bevformer_plugin.deployment.optimize_for_inference` in float32, and where the device computes with it, in
    bfloat16; and, if asked for, the last of these with what has fixed shapes compiled, see
    :func:`compile_fixed_shapes`. Each lives in a process of its own, because what a C library does with freed memory,
    on which a frame's time depends, is set for a whole process and shaped by what ran before. In every round one
    version after another runs each scope once, the others waiting.

    Scopes: ``backbone`` images to camera features; ``BEV`` those and the previous BEV to the BEV; ``head`` the BEV to
    raw outputs; ``decode`` those to boxes; ``frame`` all of it, from normalised images; ``training step`` losses and
    gradients of a queue of two frames.

    Args:
        cfg: with ``model`` and ``train_dataloader.dataset``.
        checkpoint: weights; without, they are initialised as for training, from a seed.
        data_root: dataroot with the config's info file; by default a small world of 1600 x 900 pixels is made in a
            temporary folder.
        rounds: that count, after one to warm up.
        training: whether to measure the training step, which the optimised versions do not have.
        device: 'cpu', 'cuda', or 'auto' for a GPU if there is one. Times include the work of a GPU.
        compiled: whether to measure the compiled version, which takes minutes to make.

    Returns:
        ``settings`` and ``versions``: per version ``seconds`` (per scope, a value per round), ``ratio`` (per scope,
        the median over the rounds of the plain version's time over its own in the same round), ``peak_memory`` and
        ``memory_before`` (bytes, of one frame in a process of its own) and ``deviation`` (metres; the median over the
        boxes of ``ours`` of the distance to the nearest box centre of the same class).

    Raises:
        InputError: for no rounds, data without a frame that has history, or a device that is not there.
    """
    if rounds < 1:
        raise InputError(f'rounds must be at least 1, not {rounds}')
    place = chosen_device(device)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as processes:
        root = data_root or make_world(Path(folder, 'world'))
        frames = load_frames(cfg, root, place)
        start = lambda name, training: _start(processes, cfg, checkpoint, root, name, training, place)  # noqa: E731
        versions = {name: start(name, training=False) for name in _names(place, compiled)}
        trained = {name: start(name, training=True) for name in (PLAIN, OURS) if training}
        memory = {name: process.run(measure_peak, _detect) for name, process in versions.items()}
        boxes = {name: process.run(_detected) for name, process in versions.items()}
        seconds = _seconds(versions, trained, rounds)
    report = {
        name: {
            'seconds': seconds[name],
            'ratio': {
                scope: statistics.median(plain / own for plain, own in zip(seconds[PLAIN][scope], times, strict=True))
                for scope, times in seconds[name].items()
            },
            'peak_memory': memory[name].peak,
            'memory_before': memory[name].before,
            'deviation': _deviation(boxes[name], boxes[OURS]),
        }
        for name in versions
    }
    settings = {
        **describe_machine(),
        'device': str(place),
        'attention backend': backend_name(frames.imgs),
        'padded image': frames.image_hw,
    }
    return {'settings': settings, 'versions': report}


def chosen_device(name: str = 'auto') -> torch.device:
    """Return the device to measure on.

    Args:
        name: 'cpu', 'cuda', or 'auto' for a GPU if there is one.

    Raises:
        InputError: for another name, or if this machine has no such device.
    """
    if name not in ('auto', 'cpu', 'cuda'):
        raise InputError(f"the device to measure on is 'auto', 'cpu' or 'cuda', not {name!r}")
    if name == 'cuda' and not torch.cuda.is_available():
        raise InputError('this machine has no GPU that PyTorch can use: measure on the CPU with device cpu, or auto')
    return torch.device('cuda' if name == 'auto' and torch.cuda.is_available() else name.replace('auto', 'cpu'))


def _names(device: torch.device, compiled: bool) -> list[str]:
    in_bfloat16 = computes_in_bfloat16(device)
    names = [PLAIN, OURS, OPTIMIZED_FLOAT32, *([OPTIMIZED] if in_bfloat16 else [])]
    return [*names, COMPILED if in_bfloat16 else COMPILED_FLOAT32] if compiled else names


def load_frames(cfg: Config, data_root: str, device: torch.device) -> Frames:
    """Load the first frame of the training data that has history, and the frame before it.

    Raises:
        InputError: if there is none, or the config fuses frames instead of carrying a BEV from one to the next.
    """
    if 'frame_offsets' in cfg.model:
        raise InputError(
            f'model.frame_offsets={list(cfg.model.frame_offsets)}: this benchmark times the step from one frame to '
            'the next of a model with recurrent history, such as bevformer/bevformer_tiny'
        )
    dataset = DATASETS.build({**cfg.train_dataloader.dataset, 'data_root': data_root, 'queue_length': 2})
    for index in range(len(dataset)):
        with seeded_generators(0):
            item = dataset[index]
        if len(item['inputs']['img']) == 2:
            preprocessor = MODELS.build(cfg.model.data_preprocessor).to(device)
            batch = preprocessor(pseudo_collate([item]))
            return Frames(batch['inputs']['imgs'], batch['data_samples'][0])
    raise InputError(f'{data_root} has no keyframe with one before it')


def build_detector(cfg: Config, checkpoint: str | None, device: torch.device) -> BEVFormer:
    """Build the config's detector in eval mode, with the checkpoint's weights or seeded ones."""
    torch.manual_seed(0)
    model = deepcopy(cfg.model)
    if checkpoint is None:
        model.img_backbone.init_cfg = None  # no download
    detector = MODELS.build(model)
    if checkpoint is None:
        detector.init_weights()
    else:
        load_weights(detector, checkpoint)
    return detector.to(device).eval()


def build_version(
    cfg: Config, checkpoint: str | None, name: str, device: torch.device
) -> BEVFormer | OptimizedDetector:
    """Build the config's detector as one of the versions."""
    detector = build_detector(cfg, checkpoint, device)
    if name == PLAIN:
        detector.bev_encoder.encoder = PlainEncoder(detector.bev_encoder.encoder)
    elif name == OURS:
        if device.type == 'cpu':
            detector.to(memory_format=torch.channels_last)  # as Lightning lays it out
    else:
        in_float32 = name in (OPTIMIZED_FLOAT32, COMPILED_FLOAT32)
        optimized = optimize_for_inference(detector, torch.float32 if in_float32 else torch.bfloat16)
        if name in (COMPILED, COMPILED_FLOAT32):
            compile_fixed_shapes(optimized)
        return optimized
    return detector


def compile_fixed_shapes(version: OptimizedDetector) -> None:
    """Compile backbone with neck, and detection head with decoder; on a GPU they run as CUDA graphs.

    The decoder's deformable attention runs between two of these graphs.

    The BEV encoder stays as it is, since how many pillars the cameras see differs from frame to frame. Compilation
    happens when they run for the first time, and for each size of images.

    Args:
        version: its parts are compiled in place.
    """
    detector = version.detector
    if detector.bev_encoder.cams_embeds.device.type != 'cpu':  # there they are compiled already where that pays
        detector.img_backbone.compile(mode='reduce-overhead', dynamic=False)
    detection_head(detector).compile(mode='reduce-overhead', dynamic=False)


@dataclass
class Version:
    """What a version's process holds.

    Attributes:
        detector: the version.
        frames: what it runs on.
        boxes: what it has detected in the second frame.
    """

    detector: BEVFormer | OptimizedDetector
    frames: Frames
    boxes: InstanceData | None = None


_version: Version | None = None  # of a version's process


def _current() -> Version:
    """Return the version that this process holds."""
    assert _version is not None, 'the process has not been set up'
    return _version


def _start(
    processes: ExitStack,
    cfg: Config,
    checkpoint: str | None,
    data_root: str,
    name: str,
    training: bool,
    device: torch.device,
) -> FreshProcess:
    """Start a process with a version in it."""
    process = processes.enter_context(FreshProcess())
    process.run(build_here, cfg, checkpoint, data_root, name, training, device)
    return process


def build_here(
    cfg: Config, checkpoint: str | None, data_root: str, name: str, training: bool, device: torch.device
) -> None:
    """Set this process up for a version: attention backend, memory, detector and frames."""
    global _version
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    if name == PLAIN:
        set_attention_backend('reference')  # ``grid_sample`` in the decoder too
        set_deform_conv_backend('reference')
    elif device.type == 'cpu' and not training:
        keep_freed_memory()
    _version = Version(build_version(cfg, checkpoint, name, device), load_frames(cfg, data_root, device))


@torch.no_grad()
def _detect() -> None:
    """Detect in the second frame."""
    version = _current()
    boxes = detect(version.detector, version.frames, history_of(version.detector, version.frames)).to('cpu')
    assert isinstance(boxes, InstanceData)
    version.boxes = boxes


def _detected() -> InstanceData:
    boxes = _current().boxes
    assert boxes is not None, 'nothing has been detected yet'
    return boxes


def _seconds(
    versions: dict[str, FreshProcess], trained: dict[str, FreshProcess], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Measure every version and scope in each round; versions take turns, so that all meet the same disturbances."""
    seconds = {name: {} for name in versions}
    for number in range(rounds + 1):
        for processes, work in ((versions, _forward_times), (trained, _training_time)):
            for name, process in processes.items():
                times = process.run(work)
                for scope, value in times.items() if number else ():
                    seconds[name].setdefault(scope, []).append(value)
    return seconds


@torch.no_grad()
def _forward_times() -> dict[str, float]:
    """Measure the seconds of each scope of the second frame."""
    version, frames = _current().detector, _current().frames
    history, times = history_of(version, frames), {}
    detector, precision = parts_of(version)
    current = detector.frames_of([frames.sample.metainfo])
    head = detection_head(detector)
    torch.compiler.cudagraph_mark_step_begin()
    with precision:
        times['backbone'], levels = timed(lambda: detector.extract_feat(frames.imgs[:, 1]))
        features = CameraFeatures([0], levels, frames.image_hw)
        times['BEV'], bev_embed = timed(lambda: detector.bev_encoder(features, current, [history]))
        times['head'], outputs = timed(lambda: head(bev_embed))
        times['decode'], _ = timed(lambda: head.detections(outputs))
    times['frame'] = frame_seconds(version, frames, history)
    return times


def parts_of(version: BEVFormer | OptimizedDetector) -> tuple[BEVFormer, AbstractContextManager]:
    """Return the detector whose parts can be called one by one, and the precision in which they run."""
    if isinstance(version, OptimizedDetector):
        return version.detector, version.precision()
    return version, nullcontext()


@torch.no_grad()
def detect(version: BEVFormer | OptimizedDetector, frames: Frames, history: BEVHistory) -> InstanceData:
    """Detect the boxes of the second frame, from its normalised images."""
    detector, precision = parts_of(version)
    head = detection_head(detector)
    torch.compiler.cudagraph_mark_step_begin()  # what a CUDA graph gave for the frame before may be overwritten
    with precision:
        encoded = detector.encode(frames.imgs[:, 1], detector.frames_of([frames.sample.metainfo]), [history])
        return head.detections(head(encoded.bev_embed))[0]


def detection_head(detector: BEVFormer) -> DetectionHead:
    """Return the head that is timed."""
    head = detector.heads[DETECTION]
    assert isinstance(head, DetectionHead)
    return head


def frame_seconds(version: BEVFormer | OptimizedDetector, frames: Frames, history: BEVHistory) -> float:
    """Measure the seconds from the second frame's normalised images to its boxes."""
    return timed(lambda: detect(version, frames, history))[0]


@torch.no_grad()
def history_of(version: BEVFormer | OptimizedDetector, frames: Frames) -> BEVHistory:
    """Encode the first frame and return what it leaves behind."""
    first = version.frames_of([frames.sample.metainfo['history'][0]])
    (history,) = version.encode(frames.imgs[:, 0], first, [None]).histories()
    assert history is not None, 'the BEV of the first frame is not finite'
    return history


def frame_times() -> float:
    """Measure the seconds of a whole frame in this process's version."""
    version, frames = _current().detector, _current().frames
    return frame_seconds(version, frames, history_of(version, frames))


def _training_time() -> dict[str, float]:
    """Measure the seconds of losses and gradients."""
    detector, frames = _current().detector, _current().frames
    assert isinstance(detector, BEVFormer), 'an optimised detector does not train'
    detector.train()

    def step() -> None:
        losses = detector.loss({'imgs': frames.imgs}, [frames.sample])
        detector.parse_losses(losses)[0].backward()

    seconds, _ = timed(step)
    detector.zero_grad()
    return {TRAINING: seconds}


def _deviation(boxes: InstanceData, expected: InstanceData) -> float:
    """Queries have no order where the BEV proposes them, so each expected box looks for the nearest of its class."""
    distances = torch.cdist(
        expected.get('bboxes_3d').gravity_center.double(), boxes.get('bboxes_3d').gravity_center.double()
    )
    distances[expected.get('labels_3d')[:, None] != boxes.get('labels_3d')] = torch.inf
    return distances.min(-1).values.median().item()


def speed_table(report: dict) -> str:
    """Lay the report of :func:`benchmark_speed` out for a terminal."""
    lines = [', '.join(f'{key}: {value}' for key, value in report['settings'].items())]
    for name, version in report['versions'].items():
        lines.append(f'{name:<26}{"median s":>10}{"min - max":>18}{"ratio":>8}')
        for scope, times in version['seconds'].items():
            spread = f'{min(times):.4f} - {max(times):.4f}'
            lines.append(f'  {scope:<24}{statistics.median(times):>10.4f}{spread:>18}{version["ratio"][scope]:>8.2f}')
        work = (version['peak_memory'] - version['memory_before']) / 2**30
        rate = 1 / statistics.median(version['seconds']['frame'])
        lines.append(
            f'  {rate:.2f} frames/s, peak memory {work:.2f} GiB, box centres off by {version["deviation"]:.4f} m'
        )
    lines.append(
        'ratio: median over the rounds of the plain time over its own; peak memory: of one frame, without '
        'what the process held before; box centres: median distance to those of "ours"'
    )
    return '\n'.join(lines)
