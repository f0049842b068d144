#!/usr/bin/env python
"""Train a config: python tools/train.py configs/bevformer/bevformer_nano.py --work-dir work_dirs/nano"""

import argparse
import signal
import sys
from pathlib import Path

if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the imports take seconds, and Ctrl-C then should show no traceback

from bevformer_plugin.configuration import load_config, parse_config_options
from bevformer_plugin.errors import InputError
from bevformer_plugin.training import (
    NEWEST,
    Hardware,
    RunStart,
    check_training,
    exit_on_signals,
    parse_devices,
    train_with_lightning,
    train_with_mmengine,
)
from bevformer_plugin.training.worker_errors import message_of


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a detector.')
    parser.add_argument('config')
    parser.add_argument('--work-dir', help='folder of the run; work_dirs/<config> by default')
    parser.add_argument('--engine', choices=['lightning', 'mmengine'], default='lightning')
    parser.add_argument('--devices', default='auto', help="devices on each node: how many, or which: '0,1' or '2,'")
    parser.add_argument('--num-nodes', type=int, default=1, help='how many computers')
    parser.add_argument('--accelerator', default='auto', help='cpu, gpu, ...')
    parser.add_argument(
        '--strategy', choices=['auto', 'ddp', 'fsdp'], default='auto', help='how several processes train together'
    )
    parser.add_argument('--precision', help="Lightning's precision, e.g. bf16-mixed; the config's by default")
    parser.add_argument(
        '--resume',
        nargs='?',
        const=NEWEST,
        metavar='CKPT',
        help='continue from a checkpoint, or from the newest of the work dir',
    )
    parser.add_argument(
        '--restart-schedule',
        action='store_true',
        help="with --resume: optimizer settings, schedule, batch and data as in the config, not the checkpoint's",
    )
    parser.add_argument('--seed', type=int, help="0 by default; a resumed run has its checkpoint's")
    parser.add_argument('--overwrite', action='store_true', help='replace the run in the work dir')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='K=V', help='settings to change')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    exit_on_signals(lambda: 'no step was taken')
    try:
        cfg = load_config(args.config, parse_config_options(args.cfg_options))
        check_training(cfg)
        hardware = Hardware(
            parse_devices(args.devices), args.num_nodes, args.accelerator, args.strategy, args.precision
        )
        if args.engine == 'mmengine' and hardware != Hardware():
            raise InputError(
                '--devices, --num-nodes, --accelerator, --strategy and --precision are of Lightning; '
                'under --engine mmengine the config decides: launcher, optim_wrapper.type and .dtype'
            )
        start = RunStart(
            Path(args.work_dir or f'work_dirs/{Path(args.config).stem}'),
            args.seed,
            args.resume,
            args.restart_schedule,
            args.overwrite,
        )
        if args.engine == 'mmengine':
            train_with_mmengine(cfg, start)
        else:
            train_with_lightning(cfg, start, hardware)
    except (InputError, OSError) as error:
        sys.exit(f'error: {message_of(error)}')


if __name__ == '__main__':
    main()
