#!/usr/bin/env python
"""Make tracks of detections: python tools/track.py RESULTS --infos PKL --out tracking.json"""

import argparse
import os
import sys

from bevformer_plugin.atomic_write import refuse_unwritable
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import TRACKING_SCORES, refuse_existing, write_results
from bevformer_plugin.tracking import track_results


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Follow objects from frame to frame by centres and velocities, as CenterPoint's public tracker."
    )
    parser.add_argument('results', help='nuScenes submission of detections')
    parser.add_argument('--infos', required=True, help='info file of its samples, which tells scenes and times')
    parser.add_argument('--out', required=True, help='nuScenes submission of tracks')
    parser.add_argument(
        '--workers', type=int, default=os.cpu_count(), help='number of processes; the result does not depend on it'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace an existing file')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        if not args.overwrite:
            refuse_existing(args.out)
        refuse_unwritable(args.out, args.results, args.infos)
        tracks = track_results(args.results, args.infos, args.workers)
        write_results(tracks.results, args.out, TRACKING_SCORES, tracks.meta)
    except (InputError, OSError) as error:
        sys.exit(f'error: {error}')
    boxes = [box for of_sample in tracks.results.values() for box in of_sample]
    number = len({box['tracking_id'] for box in boxes})
    print(f'wrote {args.out}: {number} tracks with {len(boxes)} boxes in {len(tracks.results)} samples')


if __name__ == '__main__':
    main()
