#!/usr/bin/env python
"""One page on whether everything fits: python tools/doctor.py --root ROOT --config CONFIG --checkpoint CHECKPOINT"""

import argparse
import logging
import sys


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Say whether machine, installation, data, config and checkpoint fit; exit status 1 if not.'
    )
    parser.add_argument('--root', help='nuScenes dataroot to examine')
    parser.add_argument('--version', help='folder of tables in ROOT, such as v1.0-mini; default all of them')
    parser.add_argument('--config', help='config to build, on the data of ROOT if that is given')
    parser.add_argument('--checkpoint', help='checkpoint to compare with CONFIG and the data')
    args = parser.parse_args()
    if args.version and not args.root:
        parser.error('--version is a folder in the dataroot: give --root as well')
    return args


def main() -> None:
    args = parse_args()
    try:  # what is broken may be the installation, and then the page cannot be made
        from bevformer_plugin.diagnosis.doctor import examine
    except Exception as error:
        sys.exit(
            f'error: bevformer_plugin cannot be imported ({type(error).__name__}: {error}). Install the pinned '
            'versions with make setup, or: pip install -r requirements.txt, then pip install --no-deps -r '
            'requirements-no-deps.txt; a compiled mmcv has to be built for this torch, mmcv-lite fits any'
        )
    logging.disable(logging.INFO)  # the page says what the parts would log
    page = examine(args.root, args.version, args.config, args.checkpoint)
    print(page.text())
    sys.exit(1 if page.wrong else 0)


if __name__ == '__main__':
    main()
