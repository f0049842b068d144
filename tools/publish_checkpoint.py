#!/usr/bin/env python
"""Strip a checkpoint to its weights: python tools/publish_checkpoint.py work_dirs/nano/last.ckpt bevformer_nano.pth"""

import argparse
import sys

from bevformer_plugin.errors import InputError
from bevformer_plugin.weights import publish_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description='Write a checkpoint without optimizer and loop state.')
    parser.add_argument('source')
    parser.add_argument('target')
    args = parser.parse_args()
    try:
        publish_checkpoint(args.source, args.target)
    except (InputError, OSError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
