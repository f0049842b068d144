"""What a step of StreamPredictor costs beyond the network."""

import statistics

import numpy as np
import torch
from mmengine.config import Config

from bevformer_plugin.deployment import Camera, Rig, StreamFrame, StreamPredictor, StreamState
from bevformer_plugin.deployment.frame_predictor import ModelInputs
from bevformer_plugin.errors import InputError
from bevformer_plugin.models import BEVFormerV2, BEVHistory
from bevformer_plugin.synthetic.rig import Camera as SimulatedCamera
from bevformer_plugin.synthetic.rig import sample_rig

from .machine import describe_machine
from .speed import build_detector
from .timing import timed

STEP, NETWORK = 'step', 'network alone'
SECONDS_BETWEEN_FRAMES, SPEED = 0.5, 8.0  # seconds, metres per second


@torch.no_grad()
def benchmark_predictor(cfg: Config, checkpoint: str | None = None, rounds: int = 30, optimize: bool = True) -> dict:
    """Measure a step of :class:`StreamPredictor`, from decoded images to detections, beside its network alone.

    In every round a step is timed, and then the network on the same normalised images, pose, history and hits. What a
    step has beyond it: checks of its arguments, the test pipeline, normalisation, and the detections' boxes. The
    images are noise of the model's own size, and the cameras are those of nuScenes, which do not change.

    Args:
        cfg: with ``model`` and ``test_dataloader.dataset``, of nuScenes' cameras.
        checkpoint: weights; without, they are initialised as for training, from a seed.
        rounds: that count, after two to warm up.
        optimize: as of :class:`StreamPredictor`.

    Returns:
        ``settings``, ``seconds`` (``step`` and ``network alone``, a value per round), and ``beyond``, the median over
        the rounds of a step's time over the network's, less 1.

    Raises:
        InputError: for no rounds, cameras that nuScenes does not have, or a BEVFormerV2.
    """
    if rounds < 1:
        raise InputError(f'rounds must be at least 1, not {rounds}')
    inputs = ModelInputs.from_config(cfg)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    detector = build_detector(cfg, checkpoint, device)
    if isinstance(detector, BEVFormerV2):
        raise InputError(
            'model.type is BEVFormerV2, and this times the step from one BEV to the next of a model with recurrent '
            'history, such as bevformer/bevformer_tiny'
        )
    predictor = StreamPredictor(detector, inputs, optimize)
    rng = np.random.default_rng(0)
    size = inputs.image_size or (1600, 900)
    rig = _nuscenes_rig(inputs.cameras, size, rng)
    images = {name: rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8) for name in rig.cameras}
    seconds: dict[str, list[float]] = {STEP: [], NETWORK: []}
    state = predictor.reset()
    for number in range(rounds + 2):
        moment = number * SECONDS_BETWEEN_FRAMES
        frame = StreamFrame(images, rig, (SPEED * moment, 0.0, 0.01 * number), moment)
        taken, alone, state = _measure(predictor, frame, state)
        if number >= 2:
            seconds[STEP].append(taken)
            seconds[NETWORK].append(alone)
    ratios = [step / network for step, network in zip(seconds[STEP], seconds[NETWORK], strict=True)]
    settings = {**describe_machine(), 'images': size, 'cameras': len(rig.cameras), 'optimised': optimize}
    return {'settings': settings, 'seconds': seconds, 'beyond': statistics.median(ratios) - 1}


def _measure(predictor: StreamPredictor, frame: StreamFrame, before: StreamState) -> tuple[float, float, StreamState]:
    """Time a step and its network, and return the seconds of both with the state after the frame."""
    assert frame.timestamp is not None
    step = lambda: predictor.step(frame.images, frame.rig, frame.pose, frame.timestamp, before)  # noqa: E731
    taken, (_, state) = timed(step)
    assert state.history is not None and state.view is not None
    history = before.history
    assert history is None or isinstance(history, BEVHistory)
    ego2global, hits = state.history.frame.ego2global.numpy(), state.view.hits
    packed, own = predictor.prepare(frame.images, frame.rig, ego2global, frame.timestamp)
    imgs = predictor.normalized(packed)
    alone, _ = timed(lambda: predictor.run_network(imgs, own, history, hits))
    return taken, alone, state


def predictor_table(report: dict) -> str:
    """Lay the report of :func:`benchmark_predictor` out for a terminal."""
    lines = [', '.join(f'{key}: {value}' for key, value in report['settings'].items())]
    lines.append(f'{"":<16}{"median ms":>10}{"min - max":>20}')
    for name, times in report['seconds'].items():
        spread = f'{1e3 * min(times):.2f} - {1e3 * max(times):.2f}'
        lines.append(f'{name:<16}{1e3 * statistics.median(times):>10.2f}{spread:>20}')
    lines.append(f'a step takes {100 * report["beyond"]:.1f} % longer than its network (median over the rounds)')
    return '\n'.join(lines)


def _nuscenes_rig(cameras: tuple[str, ...], size: tuple[int, int], rng: np.random.Generator) -> Rig:
    """Make a rig with nuScenes' mounts.

    Raises:
        InputError: for cameras that nuScenes does not have.
    """
    mounted = {name: sensor for name, sensor in sample_rig(size, rng).items() if isinstance(sensor, SimulatedCamera)}
    unknown = [name for name in cameras if name not in mounted]
    if unknown:
        raise InputError(f'nuScenes has no cameras {", ".join(unknown)}: take a config with its cameras')
    return Rig({name: Camera(mounted[name].intrinsic, mounted[name].to_ego, size) for name in cameras})
