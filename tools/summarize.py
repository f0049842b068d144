#!/usr/bin/env python
"""Scores of several runs in one table: python tools/summarize.py "history"=a/metrics_summary.json "static"=b/..."""

import argparse
import json
import sys
from pathlib import Path

from bevformer_plugin.evaluation import comparison_table


def parse_args():
    parser = argparse.ArgumentParser(description='Print the scores of several runs as one table.')
    parser.add_argument('runs', nargs='+', metavar='NAME=METRICS_SUMMARY', help='a run and its scores')
    return parser.parse_args()


def main():
    summaries = {}
    for run in parse_args().runs:
        name, _, path = run.rpartition('=')
        if not name or not Path(path).is_file():
            sys.exit(f'error: {run!r} is not NAME=FILE with an existing metrics_summary.json')
        summaries[name] = json.loads(Path(path).read_text())
    print(comparison_table(summaries))


if __name__ == '__main__':
    main()
