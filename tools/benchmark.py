#!/usr/bin/env python
"""Measure versions side by side: python tools/benchmark.py data configs/bevformer/bevformer_tiny.py"""

import argparse
import json
import sys

from mmengine.config import Config

from bevformer_plugin.atomic_write import atomic_write, refuse_unwritable
from bevformer_plugin.benchmark.fresh_process import quiet_logs
from bevformer_plugin.configuration import load_config, parse_config_options
from bevformer_plugin.errors import InputError
from bevformer_plugin.training.worker_errors import message_of


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Measure versions side by side in one run.')
    commands = parser.add_subparsers(dest='command', required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument('config')
    common.add_argument('--out', help='JSON file for the figures')
    common.add_argument('--cfg-options', nargs='+', action='extend', metavar='K=V', help='settings to change')
    data = commands.add_parser(
        'data', parents=[common], help='samples per second, against the stock transforms of mmdetection3d'
    )
    data.add_argument('--data-root', help='dataroot with infos; a small synthetic one is made by default')
    data.add_argument('--samples', type=int, default=24, help='samples of a round')
    data.add_argument('--rounds', type=int, default=5, help='how often to measure each version')
    data.add_argument('--workers', type=int, default=2, help='number of processes that load')
    data.set_defaults(run=run_data)
    speed = commands.add_parser(
        'speed', parents=[common], help='seconds of a frame and of a training step, against the plain formulation'
    )
    speed.add_argument('--checkpoint', help='weights; random ones by default')
    speed.add_argument('--data-root', help='dataroot with infos; a small synthetic one is made by default')
    speed.add_argument('--rounds', type=int, default=5, help='how often to measure each version')
    speed.add_argument('--no-training', action='store_true', help='leave out the training step')
    speed.add_argument('--device', default='auto', help='cpu, cuda, or auto: a GPU if there is one')
    speed.add_argument(
        '--compile', action='store_true', help='measure a compiled version as well, CUDA graphs on a GPU'
    )
    speed.set_defaults(run=run_speed)
    backbone = commands.add_parser(
        'backbone', parents=[common], help='deformable convolutions of a backbone, against ordinary ones'
    )
    backbone.add_argument('--images', type=int, default=6, help='how many at once')
    backbone.add_argument('--rounds', type=int, default=3, help='how often to measure each version')
    backbone.add_argument('--no-training', action='store_true', help='leave out the backward pass')
    backbone.set_defaults(run=run_backbone)
    operator = commands.add_parser('operator', help='deformable attention, backend by backend')
    operator.add_argument('--out', help='JSON file for the figures')
    operator.add_argument('--rounds', type=int, default=3, help='how often to measure each backend')
    operator.set_defaults(run=run_operator)
    onnx = commands.add_parser(
        'onnx', parents=[common], help='seconds of a frame in PyTorch and as an exported file in onnxruntime'
    )
    onnx.add_argument('--checkpoint', help='weights; random ones by default')
    onnx.add_argument('--data-root', help='dataroot with infos; a small synthetic one is made by default')
    onnx.add_argument('--rounds', type=int, default=5, help='how often to measure each version')
    onnx.set_defaults(run=run_onnx)
    stream = commands.add_parser('stream', help='latency of an exported file, frame by frame')
    stream.add_argument('file', help='what tools/export.py wrote')
    stream.add_argument('--frames', type=int, default=200, help='how many to measure')
    stream.add_argument('--out', help='JSON file for the figures')
    stream.set_defaults(run=run_stream)
    memory = commands.add_parser(
        'memory', parents=[common], help='peak memory of a training step, with each option that saves some'
    )
    memory.add_argument('--data-root', help='dataroot with infos; a small synthetic one is made by default')
    memory.add_argument('--as-configured', action='store_true', help='leave out the options that save some')
    memory.set_defaults(run=run_memory)
    predictor = commands.add_parser(
        'predictor', parents=[common], help='a step of StreamPredictor on own cameras, beside its network alone'
    )
    predictor.add_argument('--checkpoint', help='weights; random ones by default')
    predictor.add_argument('--rounds', type=int, default=30, help='how often to measure both')
    predictor.add_argument('--no-optimize', action='store_true', help='the detector as tools/test.py runs it')
    predictor.set_defaults(run=run_predictor)
    return parser.parse_args()


def _config(args: argparse.Namespace) -> Config:
    """Load the config with the settings that the command line changes."""
    return load_config(args.config, parse_config_options(args.cfg_options))


# Each of the following runs one command and returns its figures and their table.


def run_data(args: argparse.Namespace) -> tuple[dict, str]:
    from bevformer_plugin.benchmark.data import benchmark_data, data_table

    report = benchmark_data(_config(args), args.data_root, args.samples, args.rounds, args.workers)
    return report, data_table(report)


def run_speed(args: argparse.Namespace) -> tuple[dict, str]:
    from bevformer_plugin.benchmark.speed import benchmark_speed, speed_table

    report = benchmark_speed(
        _config(args),
        args.checkpoint,
        args.data_root,
        args.rounds,
        training=not args.no_training,
        device=args.device,
        compiled=args.compile,
    )
    return report, speed_table(report)


def run_backbone(args: argparse.Namespace) -> tuple[dict, str]:
    from bevformer_plugin.benchmark.backbone import backbone_table, benchmark_backbone

    report = benchmark_backbone(_config(args), args.images, args.rounds, not args.no_training)
    return report, backbone_table(report)


def run_operator(args: argparse.Namespace) -> tuple[dict, str]:
    from bevformer_plugin.benchmark.operator import benchmark_operator, operator_table

    report = benchmark_operator(rounds=args.rounds)
    return report, operator_table(report)


def run_onnx(args: argparse.Namespace) -> tuple[dict, str]:
    from bevformer_plugin.benchmark.onnx_speed import benchmark_onnx, onnx_table

    report = benchmark_onnx(_config(args), args.checkpoint, args.data_root, args.rounds)
    return report, onnx_table(report)


def run_stream(args: argparse.Namespace) -> tuple[dict, str]:
    from bevformer_plugin.benchmark.onnx_speed import benchmark_stream, stream_table

    report = benchmark_stream(args.file, args.frames)
    return report, stream_table(report)


def run_memory(args: argparse.Namespace) -> tuple[dict, str]:
    from bevformer_plugin.benchmark.memory import benchmark_memory, memory_table

    report = benchmark_memory(_config(args), args.data_root, only_configured=args.as_configured)
    return report, memory_table(report)


def run_predictor(args: argparse.Namespace) -> tuple[dict, str]:
    from bevformer_plugin.benchmark.predictor import benchmark_predictor, predictor_table

    report = benchmark_predictor(_config(args), args.checkpoint, args.rounds, not args.no_optimize)
    return report, predictor_table(report)


def main() -> None:
    args = parse_args()
    quiet_logs()
    try:
        if args.out:
            refuse_unwritable(args.out)
        report, table = args.run(args)
    except (InputError, OSError) as error:
        sys.exit(f'error: {message_of(error)}')
    print(table)
    if args.out:
        with atomic_write(args.out) as file:
            file.write(json.dumps({'command': sys.argv[1:], **report}, indent=2).encode())


if __name__ == '__main__':
    main()
