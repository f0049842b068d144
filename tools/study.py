#!/usr/bin/env python
"""Train configs alike and compare them: python tools/study.py CONFIG CONFIG --work-dir work_dirs/study"""

import argparse
import json
import sys

from bevformer_plugin.atomic_write import atomic_write, refuse_unwritable
from bevformer_plugin.benchmark.fresh_process import quiet_logs
from bevformer_plugin.benchmark.study import run_study, study_table
from bevformer_plugin.configuration import parse_config_options
from bevformer_plugin.errors import InputError
from bevformer_plugin.training.worker_errors import message_of


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train configs one after the other and compare them in one table.')
    parser.add_argument('configs', nargs='+')
    parser.add_argument('--work-dir', required=True, help='each config gets a folder in it')
    parser.add_argument('--out', help='JSON file for the figures')
    parser.add_argument('--seed', type=int, default=0, help='of every training')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='K=V', help='changes to every config')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    quiet_logs()
    try:
        if args.out:
            refuse_unwritable(args.out)
        report = run_study(args.configs, args.work_dir, parse_config_options(args.cfg_options), args.seed)
    except (InputError, OSError) as error:
        sys.exit(f'error: {message_of(error)}')
    print(study_table(report))
    if args.out:
        with atomic_write(args.out) as file:
            file.write(json.dumps(report, indent=2).encode())


if __name__ == '__main__':
    main()
