"""Training several configs alike and comparing them in one table."""

import statistics
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bevformer_plugin.configuration import load_config
from bevformer_plugin.deployment import OptimizedDetector
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import read_summary
from bevformer_plugin.models import BEVFormer
from bevformer_plugin.training import (
    Hardware,
    RunStart,
    check_testing,
    check_training,
    check_work_dir,
    direct_results,
    test_with_lightning,
    train_with_lightning,
)
from bevformer_plugin.training.run_settings import SETTINGS
from bevformer_plugin.weights import read_checkpoint

from .fresh_process import in_fresh_process
from .machine import describe_machine
from .memory import training_peak_memory
from .speed import OURS, Frames, build_version, detect, frame_seconds, history_of, load_frames

SCORES = 'metrics_summary.json'
LATENCY_ROUNDS = 20


def run_study(configs: list[str], work_dir: str, options: dict, seed: int = 0) -> dict:
    """Train each config under Lightning, score its last checkpoint, and measure what it costs.

    A config that has been scored in ``work_dir`` is not trained again. At the end, costs are measured one after the
    other: memory in a fresh process, everything else in this one.

    Args:
        configs: paths of the configs.
        work_dir: folder in which each config gets a folder.
        options: changes to every config.
        seed: seed of every training.

    Returns:
        ``settings`` and ``configs``: per config ``NDS``, ``mAP``, ``parameters``, ``flops`` of a frame (products and
        sums of matrix products, convolutions and sampling; other functions, such as tanh, are not counted),
        ``latency`` (seconds of a frame, with history if the config has one, a value per round) and
        ``training_memory`` (bytes, peak of training steps minus what the process held before).

    Raises:
        InputError: if two configs have the same name, a config cannot train or test, or a folder has scores of other
            settings or that cannot be read.
        FileExistsError: if a folder has an unfinished training in it.
    """
    loaded = {Path(path).stem: load_config(path, options) for path in configs}
    if len(loaded) < len(configs):
        raise InputError(f'two of {configs} have the same name, and results go by name')
    folders = {name: Path(work_dir, name) for name in loaded}
    unscored = [name for name in loaded if not (folders[name] / SCORES).is_file()]
    for name, cfg in loaded.items():
        check_training(cfg)
        check_testing(cfg)
        direct_results(cfg, str(folders[name] / 'results_nusc.json'), format_only=False)
        if name in unscored:
            check_work_dir(RunStart(folders[name], seed))
        else:
            _refuse_other_training(cfg, folders[name], seed)
    for name, cfg in loaded.items():
        if name in unscored:
            print(f'training {name}', flush=True)
            in_fresh_process(_train_and_score, cfg, folders[name], seed, quiet=False)
        else:
            print(f'{name} was trained before: {folders[name] / SCORES}', flush=True)
    report = {}
    for name, cfg in loaded.items():
        print(f'measuring {name}', flush=True)
        scores = read_summary(folders[name] / SCORES)
        report[name] = {'NDS': scores['nd_score'], 'mAP': scores['mean_ap'], **_costs(cfg)}
    return {'settings': describe_machine(), 'configs': report}


def _refuse_other_training(cfg: Config, folder: Path, seed: int) -> None:
    """Refuse scores of a training with other settings under the same name.

    Raises:
        InputError: if there are such scores; the message names the folder to remove.
    """
    meta = read_checkpoint(str(folder / 'last.ckpt')).get('meta') or {}
    trained_seed = (meta.get(SETTINGS) or {}).get('seed')
    if trained_seed != seed or _settings(Config.fromfile(folder / 'config.py')) != _settings(cfg):
        raise InputError(
            f'{folder} has the scores of a training with other settings (its config.py, seed {trained_seed}): take '
            'another --work-dir, or remove the folder to train again'
        )


def _settings(cfg: Config) -> dict:
    """Return the settings of a config except for where results go, which older studies set after the training."""
    settings = cfg.to_dict()
    evaluators = settings['test_evaluator']
    for metric in evaluators if isinstance(evaluators, list | tuple) else [evaluators]:
        metric.pop('results_path', None)
        metric.pop('format_only', None)
    return settings


def _train_and_score(cfg: Config, folder: Path, seed: int) -> None:
    """Train a config from the start, and score its last checkpoint."""
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    hardware = Hardware(devices=1)
    train_with_lightning(cfg, RunStart(folder, seed), hardware)
    test_with_lightning(cfg, str(folder / 'last.ckpt'), hardware)


def _costs(cfg: Config) -> dict[str, object]:
    """Measure the parameters, operations, latency and training memory of a config."""
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    detector = build_version(cfg, None, OURS, device)
    frames = load_frames(cfg, cfg.train_dataloader.dataset.data_root, device)
    history = history_of(detector, frames)
    latency = [frame_seconds(detector, frames, history) for _ in range(LATENCY_ROUNDS + 1)][1:]
    memory = training_peak_memory(cfg, steps=2)
    return {
        'parameters': sum(parameter.numel() for parameter in detector.parameters()),
        'flops': frame_flops(detector, frames),
        'latency': latency,
        'training_memory': memory.peak - memory.before,
    }


@torch.no_grad()
def frame_flops(detector: BEVFormer | OptimizedDetector, frames: Frames) -> int:
    """Count the products and sums of the step of the second frame."""
    history = history_of(detector, frames)
    sampling = torch.ops.bevformer_plugin.deformable_attention
    counter = FlopCounterMode(display=False, custom_mapping={sampling: _sampling_flops})
    with counter, sdpa_kernel(SDPBackend.MATH):  # the counter does not know the fused kernels
        detect(detector, frames, history)
    return counter.get_total_flops()


def _sampling_flops(
    value: torch.Size,
    spatial_shapes: torch.Size,
    locations: torch.Size,
    *_: object,
    out_shape: torch.Size | None = None,
) -> int:
    """Count a product and a sum for each of four corners and the weight, per channel of every sample."""
    return 2 * 5 * value[3] * locations[:-1].numel()


def study_table(report: dict) -> str:
    """Format the report of :func:`run_study` as a table for a terminal."""
    lines = [
        ', '.join(f'{key}: {value}' for key, value in report['settings'].items()),
        f'{"":<36}{"NDS":>8}{"mAP":>8}{"params M":>10}{"GFLOPs":>8}{"ms/frame":>10}{"train MiB":>11}',
    ]
    for name, row in report['configs'].items():
        lines.append(
            f'{name:<36}{row["NDS"]:>8.3f}{row["mAP"]:>8.3f}{row["parameters"] / 1e6:>10.3f}'
            f'{row["flops"] / 1e9:>8.2f}{1000 * statistics.median(row["latency"]):>10.1f}'
            f'{row["training_memory"] / 2**20:>11.0f}'
        )
    lines.append(
        f'GFLOPs: of a frame, tanh and softmax not counted; ms/frame: median of {LATENCY_ROUNDS}; train MiB: peak of '
        'a training step, without what the process held before'
    )
    return '\n'.join(lines)
