#!/usr/bin/env python
"""Test a checkpoint: python tools/test.py CONFIG CHECKPOINT --out results_nusc.json"""

import argparse
import signal
import sys
from pathlib import Path

if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the imports take seconds, and Ctrl-C then should show no traceback

from lightning.pytorch.utilities import rank_zero_only

from bevformer_plugin.atomic_write import refuse_unwritable
from bevformer_plugin.configuration import load_config, parse_config_options
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import SUMMARY, refuse_existing, write_run_record
from bevformer_plugin.training import (
    INFERENCE_TYPES,
    Hardware,
    check_testing,
    direct_results,
    exit_on_signals,
    parse_devices,
    test_with_lightning,
)
from bevformer_plugin.training.worker_errors import message_of


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Stream over the test scenes, write a submission and score it.')
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--out', help='submission file; its record and metrics_summary.json go beside it')
    parser.add_argument('--format-only', action='store_true', help='write submission and maps, do not score them')
    parser.add_argument('--maps-out', metavar='DIR', help='folder for predicted maps and map_summary.json')
    parser.add_argument('--devices', default='auto', help="devices on each node: how many, or which: '0,1' or '2,'")
    parser.add_argument('--num-nodes', type=int, default=1, help='how many computers')
    parser.add_argument('--accelerator', default='auto', help='cpu, gpu, ...')
    parser.add_argument(
        '--optimize',
        nargs='?',
        const='auto',
        choices=INFERENCE_TYPES,
        metavar='TYPE',
        help='fold, lay out and compile the detector for speed: float32, bfloat16, or as fits the device (no TYPE)',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace an existing submission and maps')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='K=V', help='settings to change')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    left = f'the maps in {args.maps_out} are not complete' if args.maps_out else 'nothing was written'
    exit_on_signals(lambda: left)
    try:
        if args.out:
            if not args.overwrite:
                refuse_existing(args.out, Path(args.out).with_name('metrics_summary.json'))
            refuse_unwritable(args.out, args.config, args.checkpoint)
        if args.maps_out:
            summary = Path(args.maps_out) / SUMMARY
            if summary.exists() and not args.overwrite:
                raise FileExistsError(f'{summary} exists: replace it with --overwrite, or give another --maps-out')
            refuse_unwritable(summary)
        cfg = load_config(args.config, parse_config_options(args.cfg_options))
        check_testing(cfg)
        direct_results(cfg, args.out, args.format_only, args.maps_out)
        hardware = Hardware(parse_devices(args.devices), args.num_nodes, args.accelerator)
        test_with_lightning(cfg, args.checkpoint, hardware, args.optimize)
        if args.out:
            rank_zero_only(write_run_record)(args.out, args.config, args.checkpoint, sys.argv)
    except (InputError, OSError) as error:
        sys.exit(f'error: {message_of(error)}')


if __name__ == '__main__':
    main()
