#!/usr/bin/env python
"""Score a nuScenes submission: python tools/evaluate.py RESULTS --root data/nuscenes --version v1.0-trainval"""

import argparse
import sys
from pathlib import Path

from bevformer_plugin.datasets.infos import TRUE_BOX_RULES
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import evaluate_results, metrics_table, refuse_existing


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Score any nuScenes detection submission with the devkit.')
    parser.add_argument('results')
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
    parser.add_argument('--out', help='folder for metrics_summary.json; by default that of the results')
    parser.add_argument('--overwrite', action='store_true', help='replace existing scores')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        if not args.overwrite:
            refuse_existing(Path(args.out or Path(args.results).parent, 'metrics_summary.json'))
        summary = evaluate_results(
            args.results, args.root, args.version, args.split, args.infos, args.out, args.true_boxes
        )
    except (InputError, OSError) as error:
        sys.exit(f'error: {error}')
    print(metrics_table(summary))


if __name__ == '__main__':
    main()
