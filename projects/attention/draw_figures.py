#!/usr/bin/env python
"""Draw the pictures of docs/attention.md: python projects/attention/draw_figures.py --out docs/images"""

import argparse

import matplotlib
from figures import draw_attention_figures


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw the pictures of the guide to attention.')
    parser.add_argument('--out', required=True, help='folder for the pictures')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    matplotlib.use('Agg')
    print('wrote', *draw_attention_figures(args.out), sep='\n  ')


if __name__ == '__main__':
    main()
