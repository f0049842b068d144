#!/usr/bin/env python
"""Scores of several runs in one table: python tools/summarize.py "history"=a/metrics_summary.json "static"=b/..."""

import argparse
import sys
from pathlib import Path

from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import comparison_table, read_summary


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Print the scores of several runs as one table.')
    parser.add_argument('runs', nargs='+', metavar='NAME=METRICS_SUMMARY', help='a run and its scores')
    return parser.parse_args()


def main() -> None:
    summaries = {}
    runs = parse_args().runs
    names = [run.rpartition('=')[0] for run in runs]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        sys.exit(f'error: {repeated[0]!r} names two runs, and each row needs a name of its own')
    for run in runs:
        name, _, path = run.rpartition('=')
        if not name or not Path(path).is_file():
            sys.exit(f'error: {run!r} is not NAME=FILE with an existing metrics_summary.json')
        try:
            summaries[name] = read_summary(path)
        except InputError as error:
            sys.exit(f'error: {error}')
    print(comparison_table(summaries))


if __name__ == '__main__':
    main()
