#!/usr/bin/env python
"""Write a checkpoint as ONNX: python tools/export.py CONFIG CHECKPOINT --out model.onnx"""

import argparse
import sys

from bevformer_plugin.atomic_write import refuse_unwritable
from bevformer_plugin.configuration import load_config, parse_config_options
from bevformer_plugin.deployment import OnnxForm, Rig, export_checkpoint
from bevformer_plugin.deployment.onnx_description import MLPERF, NORMALIZED, RAW, TENSORS
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import refuse_existing
from bevformer_plugin.training.worker_errors import message_of


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Write a detector as an ONNX file without custom operators.')
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--out', required=True, help='the ONNX file')
    parser.add_argument('--opset', type=int, default=18, help="version of ONNX's operators")
    parser.add_argument('--profile', default='default', choices=TENSORS, help="mlperf: names of MLPerf's benchmark")
    parser.add_argument('--images', choices=(RAW, NORMALIZED), help='prepared by the file, or by whoever runs it')
    parser.add_argument('--rig', help='YAML file of the cameras; by default the calibrations of the test data count')
    parser.add_argument(
        '--int8',
        type=int,
        metavar='FRAMES',
        help='compute backbone and neck in 8-bit integers, calibrated on so many frames of the training data',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace an existing file')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='K=V', help='settings to change')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        form = OnnxForm(args.opset, args.profile, args.images or (NORMALIZED if args.profile == MLPERF else RAW))
        if not args.overwrite:
            refuse_existing(args.out)
        refuse_unwritable(args.out, args.config, args.checkpoint, args.rig)
        cfg = load_config(args.config, parse_config_options(args.cfg_options))
        rig = None if args.rig is None else Rig.from_file(args.rig)
        report = export_checkpoint(cfg, args.checkpoint, args.out, form, rig, args.int8)
    except (InputError, OSError) as error:
        sys.exit(f'error: {message_of(error)}')
    described = report.description
    print(
        f'{args.out}: {report.megabytes:.1f} MB, {report.nodes} operators of opset {form.opset}, written in '
        f'{report.seconds:.0f} s; room for {described.hits_per_camera} pillars a camera and '
        f'{described.cameras_per_pillar} cameras a pillar'
    )


if __name__ == '__main__':
    main()
