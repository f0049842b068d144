#!/usr/bin/env python
"""Published weights to ours: python tools/convert_checkpoint.py SOURCE TARGET --config CONFIG"""

import argparse
import sys

from bevformer_plugin.configuration import load_config
from bevformer_plugin.errors import InputError
from bevformer_plugin.weights import convert_checkpoint


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Convert a checkpoint of the published BEVFormer, or back.')
    parser.add_argument('source')
    parser.add_argument('target')
    parser.add_argument('--config', required=True, help='config of the model the weights are of')
    parser.add_argument('--to-published', action='store_true', help="from this plugin's layout to the published one")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        count = convert_checkpoint(args.source, args.target, load_config(args.config), args.to_published)
    except (InputError, OSError) as error:
        sys.exit(f'error: {error}')
    print(f'{count} tensors converted, none missing, none left over: {args.target}')


if __name__ == '__main__':
    main()
