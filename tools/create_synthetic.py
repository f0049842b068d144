#!/usr/bin/env python
"""Write a synthetic world in nuScenes format: python tools/create_synthetic.py data/synthetic --seed 0"""

import argparse
import os
import sys

from bevformer_plugin.errors import InputError
from bevformer_plugin.synthetic import create_synthetic_world


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Write a synthetic world in nuScenes format.')
    parser.add_argument('out', help='dataroot to create')
    parser.add_argument('--scenes-train', type=int, default=8, help='scenes of the training split')
    parser.add_argument('--scenes-val', type=int, default=2, help='scenes of the validation split')
    parser.add_argument('--frames', type=int, default=40, help='keyframes per scene, at 2 Hz')
    parser.add_argument('--seed', type=int, default=0, help='the same seed gives the same files')
    parser.add_argument('--image-size', type=int, nargs=2, default=(400, 224), metavar=('W', 'H'), help='pixels')
    parser.add_argument(
        '--version', default='v1.0-mini', help='v1.0-mini (up to 8 + 2 scenes) or v1.0-trainval (up to 700 + 150)'
    )
    parser.add_argument(
        '--workers', type=int, default=os.cpu_count(), help='number of processes; the result does not depend on it'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace an existing folder')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        summary = create_synthetic_world(
            args.out,
            args.scenes_train,
            args.scenes_val,
            args.frames,
            args.seed,
            tuple(args.image_size),
            version=args.version,
            workers=args.workers,
            overwrite=args.overwrite,
        )
    except (InputError, OSError) as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit('interrupted: nothing was written')
    print(summary.table())


if __name__ == '__main__':
    main()
