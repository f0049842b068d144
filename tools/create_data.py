#!/usr/bin/env python
"""Make info files: python tools/create_data.py nuscenes --root data/nuscenes --version v1.0-trainval"""

import argparse
import os
import sys

from bevformer_plugin.datasets.infos import (
    BOX_CONVENTIONS,
    CAN_BUS_RULES,
    OFFICIAL_SPLITS,
    convert_infos,
    create_nuscenes_infos,
)
from bevformer_plugin.errors import InputError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Make the info files that datasets read.')
    commands = parser.add_subparsers(dest='command', required=True)
    nuscenes = commands.add_parser('nuscenes', help='from a nuScenes dataroot')
    nuscenes.add_argument('--root', required=True, help='folder that holds samples/, maps/ and the version')
    nuscenes.add_argument(
        '--version', required=True, help=f'{", ".join(OFFICIAL_SPLITS)}, or a folder of your own tables in ROOT'
    )
    nuscenes.add_argument(
        '--splits',
        help='JSON file, split name -> scene names, for own scenes; default ROOT/VERSION/splits.json if it exists',
    )
    nuscenes.add_argument(
        '--cameras', nargs='+', metavar='CAM', help='take only these cameras, such as CAM_FRONT CAM_BACK'
    )
    nuscenes.add_argument('--canbus', help='folder can_bus or its parent; default ROOT/can_bus if it exists')
    nuscenes.add_argument(
        '--can-bus-message',
        choices=CAN_BUS_RULES,
        default='nearest',
        help='which message belongs to a sample: the nearest in time, or the next one, as published weights need',
    )
    nuscenes.add_argument('--out', help='folder for the info files; default ROOT')
    nuscenes.add_argument(
        '--workers', type=int, default=os.cpu_count(), help='number of processes; the result does not depend on it'
    )
    nuscenes.add_argument('--overwrite', action='store_true', help='replace existing files')
    convert = commands.add_parser('convert', help='from info files of the published BEVFormer or of mmdetection3d 1.4')
    convert.add_argument('infos', help='pickle to read')
    convert.add_argument('--root', help='nuScenes dataroot; needed for files of mmdetection3d')
    convert.add_argument('--version', help='nuScenes version that the file must be of')
    convert.add_argument(
        '--box-convention',
        choices=BOX_CONVENTIONS,
        help='whether boxes are those of mmdetection3d before 1.0 (old) or later (new), if the classes do not tell it',
    )
    convert.add_argument('--out', required=True, help='pickle to write')
    convert.add_argument('--overwrite', action='store_true', help='replace an existing file')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        if args.command == 'nuscenes':
            create_nuscenes_infos(
                args.root,
                args.version,
                args.out,
                args.canbus,
                args.workers,
                args.overwrite,
                args.can_bus_message,
                args.cameras,
                args.splits,
            )
        else:
            convert_infos(args.infos, args.out, args.root, args.version, args.overwrite, args.box_convention)
    except (InputError, OSError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
