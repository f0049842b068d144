#!/usr/bin/env python
"""Check a folder of nuScenes tables and its images: python tools/check_data.py data/own --version city"""

import argparse
import os
import sys

from bevformer_plugin.diagnosis import check_data
from bevformer_plugin.errors import InputError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Print every fault of the tables and images of a dataroot with its record; exit status 1 if any.'
    )
    parser.add_argument('root', help='folder that holds samples/, maps/ and the folder of tables')
    parser.add_argument('--version', help='folder of tables in ROOT, such as v1.0-mini; default the only one')
    parser.add_argument(
        '--workers',
        type=int,
        default=os.cpu_count(),
        help='processes that read images; the result does not depend on it',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        report = check_data(args.root, args.version, args.workers)
    except (InputError, OSError) as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit('interrupted: the check is not complete')
    print(report.text())
    sys.exit(1 if report.count else 0)


if __name__ == '__main__':
    main()
