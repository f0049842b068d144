#!/usr/bin/env python
"""Why submissions score as they do: python tools/report.py RESULTS --root ROOT --version V --out report.html"""

import argparse
import sys
from pathlib import Path

from bevformer_plugin.atomic_write import atomic_write, refuse_unwritable
from bevformer_plugin.datasets.infos import TRUE_BOX_RULES
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import refuse_existing
from bevformer_plugin.report import analyse_submissions, analyse_tracks, terminal_table, write_page


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write one HTML page on one or more submissions: scores with intervals, slices, causes of errors, '
        'pictures; the first submission is the one that others are compared with.'
    )
    parser.add_argument('results', nargs='+', metavar='RESULTS', help='submissions of the same samples')
    parser.add_argument('--root', required=True, help='nuScenes dataroot')
    parser.add_argument('--version', required=True, help='v1.0-trainval, v1.0-mini, ...')
    parser.add_argument('--split', help='split; by default that of the infos, or the validation split')
    parser.add_argument('--infos', help='score the samples of this info file only')
    parser.add_argument(
        '--true-boxes', choices=TRUE_BOX_RULES, default='points', help='which annotated objects are true boxes'
    )
    parser.add_argument('--tracks', metavar='JSON', help='tracks that tools/track.py made of the submission')
    parser.add_argument('--out', required=True, metavar='HTML', help='file for the page')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing page')
    args = parser.parse_args()
    if args.tracks and len(args.results) > 1:
        parser.error('--tracks is for a report on one submission: leave it out to compare several')
    return args


def main() -> None:
    args = parse_args()
    try:
        if not args.overwrite:
            refuse_existing(args.out)
        refuse_unwritable(args.out, *args.results, args.tracks, args.infos)
        tracks = (
            analyse_tracks(
                args.tracks, args.results[0], args.root, args.version, args.split, args.infos, args.true_boxes
            )
            if args.tracks
            else None
        )
        runs = analyse_submissions(args.results, args.root, args.version, args.split, args.infos, args.true_boxes)
        page = write_page(runs, args.root, args.version, tracks)
        with atomic_write(args.out) as file:
            file.write(page.encode())
    except (InputError, OSError) as error:
        sys.exit(f'error: {error}')
    print(terminal_table(runs))
    print(f'wrote {Path(args.out)}: open it in a browser')


if __name__ == '__main__':
    main()
