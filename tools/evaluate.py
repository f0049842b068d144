#!/usr/bin/env python
"""Score detections or tracks: python tools/evaluate.py RESULTS --root data/nuscenes --version v1.0-trainval"""

import argparse
import sys
from pathlib import Path

from bevformer_plugin.atomic_write import refuse_unwritable_folder
from bevformer_plugin.datasets.infos import TRUE_BOX_RULES
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import (
    TRACKING_SUMMARY,
    evaluate_results,
    evaluate_tracks,
    metrics_table,
    refuse_existing,
    tracking_table,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Score any nuScenes submission with the devkit.')
    parser.add_argument('results')
    parser.add_argument(
        '--task', choices=('detection', 'tracking'), default='detection', help='what the submission holds'
    )
    parser.add_argument('--root', required=True, help='nuScenes dataroot')
    parser.add_argument('--version', required=True, help='v1.0-trainval, v1.0-mini, ...')
    parser.add_argument(
        '--split', help='split of nuScenes or of your own data; by default that of the infos, or the validation split'
    )
    parser.add_argument('--infos', help='score the samples of this info file only')
    parser.add_argument(
        '--true-boxes',
        choices=TRUE_BOX_RULES,
        default='points',
        help='which annotated objects count; official scores count those with LiDAR or radar points',
    )
    parser.add_argument('--out', help='folder for the scores; by default that of the results')
    parser.add_argument('--overwrite', action='store_true', help='replace existing scores')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    tracking = args.task == 'tracking'
    evaluate, table = (evaluate_tracks, tracking_table) if tracking else (evaluate_results, metrics_table)
    try:
        folder = args.out or Path(args.results).parent
        if Path(folder).is_file():
            raise InputError(f'{folder} is a file: give a folder for the scores with --out')
        if not args.overwrite:
            refuse_existing(Path(folder, TRACKING_SUMMARY if tracking else 'metrics_summary.json'))
        refuse_unwritable_folder(folder)
        summary = evaluate(args.results, args.root, args.version, args.split, args.infos, args.out, args.true_boxes)
    except (InputError, OSError) as error:
        sys.exit(f'error: {error}')
    print(table(summary))


if __name__ == '__main__':
    main()
