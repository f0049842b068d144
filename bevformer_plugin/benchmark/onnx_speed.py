"""How long exported files take: frames that come one by one, and the same frame beside PyTorch."""

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from bevformer_plugin.deployment import (
    ModelSurroundings,
    OnnxForm,
    OnnxNetwork,
    budget_for,
    computes_in_bfloat16,
    export_onnx,
    quantize_features,
)
from bevformer_plugin.errors import InputError
from bevformer_plugin.models import BEVHistory, Frame
from bevformer_plugin.synthetic.rig import LIDAR, Camera, sample_rig

from .fresh_process import FreshProcess
from .machine import describe_machine
from .speed import (
    OPTIMIZED,
    OPTIMIZED_FLOAT32,
    OURS,
    Frames,
    build_detector,
    build_here,
    detection_head,
    frame_times,
    load_frames,
)
from .worlds import make_world

RUNTIME_FLOAT32, RUNTIME_INT8 = 'onnxruntime, float32', 'onnxruntime, int8 backbone and neck'
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
WARM_UP = 3  # frames before the first that counts


def benchmark_stream(path: str | Path, frames: int = 200, threads: int | None = None) -> dict:
    """Measure the latency of frames that come one after the other, each with the BEV of the one before.

    Images are noise, cameras those of the synthetic world; nothing of the time depends on their values. From arrays in
    memory to raw scores and boxes.

    Args:
        path: of a file that ``tools/export.py`` wrote.
        frames: that count.
        threads: that compute; None takes as many as PyTorch uses.

    Returns:
        ``settings``, ``seconds`` of every frame and ``percentiles`` of them.

    Raises:
        FileNotFoundError: if the file does not exist.
        InputError: for no frames, or as :class:`OnnxNetwork`.
    """
    if frames < 1:
        raise InputError(f'frames must be at least 1, not {frames}')
    network = OnnxNetwork(path, threads)
    described, session = network.description, network.session
    feed = network.inputs(_noise(network), _standing(described.cameras, described.image_size), None)
    bev, use = described.tensors.inputs[1:3]
    seconds = []
    for number in range(WARM_UP + frames):
        begin = time.perf_counter()
        outputs = session.run(None, feed)
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - begin)
        feed[bev], feed[use] = outputs[0], np.ones_like(feed[use])
    return {
        'settings': {
            **describe_machine(),
            'threads': threads or torch.get_num_threads(),
            'file': Path(path).name,
            'megabytes': round(Path(path).stat().st_size / 1e6, 1),
            'frames': frames,
        },
        'seconds': seconds,
        'percentiles': {f'p{percent:g}': _percentile(seconds, percent) for percent in PERCENTILES},
    }


def _percentile(seconds: list[float], percent: float) -> float:
    """The smallest measured value that is not exceeded by so many per cent of them."""
    return float(np.percentile(seconds, percent, method='inverted_cdf'))


def _noise(network: OnnxNetwork) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if network.description.images == 'raw':
        return torch.randint(256, network.image_shape, dtype=torch.uint8, generator=generator)
    return torch.randn(network.image_shape, generator=generator)


def _standing(cameras: tuple[str, ...], image_size: tuple[int, int]) -> Frame:
    """A frame of a vehicle that stands still, with cameras of the synthetic world in the place of unknown ones."""
    sensors = sample_rig(image_size, np.random.default_rng(0))
    mounted = {name: sensor for name, sensor in sensors.items() if isinstance(sensor, Camera)}
    chosen = [mounted.get(name, [*mounted.values()][place % len(mounted)]) for place, name in enumerate(cameras)]
    projections = []
    for camera in chosen:
        intrinsics = np.eye(4)
        intrinsics[:3, :3] = camera.intrinsic
        projections.append(intrinsics @ np.linalg.inv(camera.to_ego) @ sensors[LIDAR].to_ego)
    can_bus = torch.zeros(13, dtype=torch.float64)
    can_bus[0] = 1.0
    lidar2img = torch.from_numpy(np.stack(projections))
    lidar2ego = torch.from_numpy(sensors[LIDAR].to_ego)
    return Frame('standing', 'stream', 0.0, lidar2img, torch.eye(4, dtype=torch.float64), can_bus, lidar2ego)


def stream_table(report: dict) -> str:
    """Lay the report of :func:`benchmark_stream` out for a terminal."""
    lines = [', '.join(f'{key}: {value}' for key, value in report['settings'].items())]
    lines.append(f'{"latency of a frame":<24}' + ''.join(f'{name:>10}' for name in report['percentiles']))
    lines.append(
        f'{"milliseconds":<24}' + ''.join(f'{1e3 * value:>10.1f}' for value in report['percentiles'].values())
    )
    return '\n'.join(lines)


def benchmark_onnx(cfg: Config, checkpoint: str | None = None, data_root: str | None = None, rounds: int = 5) -> dict:
    """Run a config's detector over the same frame, which has history, in PyTorch and in onnxruntime.

    Versions: the detector as ``tools/test.py`` runs it; after ``optimize_for_inference`` in float32, and in bfloat16
    where the processor computes with it; the exported file in float32; and with convolutions of backbone and neck in
    8-bit integers, calibrated on the two frames. Each lives in a process of its own, and they take turns.

    Args:
        cfg: with ``model`` and ``train_dataloader.dataset``.
        checkpoint: weights; without, they are initialised as for training, from a seed.
        data_root: dataroot with the config's info file; by default a small world is made in a temporary folder.
        rounds: that count, after one to warm up.

    Returns:
        ``settings`` and ``versions``: per version ``seconds`` of a frame from normalised images to boxes, and
        ``ratio``, the median over the rounds of its time over that of the optimised float32 version in the same round.

    Raises:
        InputError: for no rounds, or data without a frame that has history.
    """
    if rounds < 1:
        raise InputError(f'rounds must be at least 1, not {rounds}')
    device = torch.device('cpu')
    names = [OURS, OPTIMIZED_FLOAT32, *([OPTIMIZED] if computes_in_bfloat16(device) else [])]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as processes:
        root = data_root or make_world(Path(folder, 'world'))
        files = _export(cfg, checkpoint, root, Path(folder))
        started: dict[str, FreshProcess] = {}
        for name in (*names, *files):
            started[name] = processes.enter_context(FreshProcess())
            if name in files:
                started[name].run(_open_here, cfg, root, str(files[name]))
            else:
                started[name].run(build_here, cfg, checkpoint, root, name, training=False, device=torch.device('cpu'))
        seconds: dict[str, list[float]] = {name: [] for name in started}
        for number in range(rounds + 1):
            for name, process in started.items():
                value = process.run(_frame_here) if name in files else process.run(frame_times)
                if number:
                    seconds[name].append(value)
        sizes = {name: path.stat().st_size / 1e6 for name, path in files.items()}
    base = seconds[OPTIMIZED_FLOAT32]
    versions = {
        name: {
            'seconds': times,
            'ratio': statistics.median(own / other for own, other in zip(times, base, strict=True)),
        }
        for name, times in seconds.items()
    }
    return {'settings': {**describe_machine(), 'megabytes': sizes}, 'versions': versions}


def _export(cfg: Config, checkpoint: str | None, root: str, folder: Path) -> dict[str, Path]:
    """Write the file in float32 and in integers, by version."""
    device = torch.device('cpu')
    frames, detector = load_frames(cfg, root, device), build_detector(cfg, checkpoint, device)
    meta = frames.sample.metainfo
    current = detector.frames_of([meta])[0]
    height, width = meta['img_shape']
    cameras = tuple(meta['cameras'])
    classes = tuple(map(str, range(detection_head(detector).num_classes)))
    paths = {RUNTIME_FLOAT32: folder / 'float32.onnx', RUNTIME_INT8: folder / 'int8.onnx'}
    budget = budget_for(detector, [current.lidar2img], (height, width))
    surroundings = ModelSurroundings((width, height), cameras, classes)
    export_onnx(detector, paths[RUNTIME_FLOAT32], surroundings, budget, OnnxForm(images='normalized'))
    quantize_features(paths[RUNTIME_FLOAT32], paths[RUNTIME_INT8], frames.imgs[0])
    return paths


_opened: tuple[OnnxNetwork, Frames, Frame, BEVHistory] | None = None  # of a process that runs a file


def _open_here(cfg: Config, root: str, path: str) -> None:
    """Set this process up for an exported file: network, frames, and what the first of them leaves behind."""
    global _opened
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    network, frames = OnnxNetwork(path), load_frames(cfg, root, torch.device('cpu'))
    cameras = len(network.description.cameras)
    first, current = (
        Frame.from_meta(meta, cameras) for meta in (frames.sample.metainfo['history'][0], frames.sample.metainfo)
    )
    _, history = network.step(frames.imgs[0, 0], first, None)
    assert history is not None, 'the BEV of the first frame is not finite'
    _opened = network, frames, current, history


def _frame_here() -> float:
    """Measure the seconds from the second frame's normalised images to its boxes."""
    assert _opened is not None, 'the process has not been set up'
    network, frames, current, history = _opened
    begin = time.perf_counter()
    raw, _ = network.step(frames.imgs[0, 1], current, history)
    network.decode(raw)
    return time.perf_counter() - begin


def onnx_table(report: dict) -> str:
    """Lay the report of :func:`benchmark_onnx` out for a terminal."""
    lines = [', '.join(f'{key}: {value}' for key, value in report['settings'].items())]
    lines.append(f'{"seconds of a frame":<40}{"median":>10}{"min - max":>18}{"ratio":>8}')
    for name, version in report['versions'].items():
        times = version['seconds']
        spread = f'{min(times):.4f} - {max(times):.4f}'
        lines.append(f'{name:<40}{statistics.median(times):>10.4f}{spread:>18}{version["ratio"]:>8.2f}')
    lines.append('ratio: median over the rounds of its time over that of the optimised float32 version')
    return '\n'.join(lines)
