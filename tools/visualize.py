#!/usr/bin/env python
"""Draw cameras and bird's-eye view: python tools/visualize.py --root ROOT --infos PKL --out DIR --sample TOKEN"""

import argparse
import sys
from pathlib import Path

from bevformer_plugin.datasets.infos import TRUE_BOX_RULES
from bevformer_plugin.errors import InputError
from bevformer_plugin.inspection import BEVInspector
from bevformer_plugin.maps import PROTOCOLS
from bevformer_plugin.visualization import (
    FrameSource,
    check_folder,
    check_score_threshold,
    draw_best_and_worst,
    draw_sample,
    draw_scene,
)


def count(text: str) -> int:
    """Parse a number that is 0 or more, for argparse."""
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f'must be 0 or more, not {text}')
    return int(text)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw true and predicted boxes in the cameras and from above.')
    parser.add_argument('--root', required=True, help='nuScenes dataroot')
    parser.add_argument('--infos', required=True, help='info file')
    parser.add_argument('--results', help='nuScenes submission; without it only true boxes are drawn')
    parser.add_argument('--tracks', help='submission of tools/track.py: draw its boxes with colours and ids of tracks')
    parser.add_argument(
        '--maps',
        metavar='DIR',
        help='folder of tools/test.py --maps-out: draw predicted and true maps under the boxes',
    )
    parser.add_argument('--map-protocol', choices=PROTOCOLS, help='draw true maps, of which none are predicted')
    parser.add_argument('--out', required=True, help='folder for the pictures')
    parser.add_argument('--sample', metavar='TOKEN', help='draw this sample')
    parser.add_argument('--scene', metavar='NAME', help='draw all keyframes of this scene, and a video')
    parser.add_argument('--best', type=count, default=0, metavar='K', help='draw K samples with the highest AP at 2 m')
    parser.add_argument('--worst', type=count, default=0, metavar='K', help='draw K samples with the lowest AP at 2 m')
    parser.add_argument('--score-thr', type=float, default=0.3, help='leave out predicted boxes below it, 0 to 1')
    parser.add_argument(
        '--true-boxes', choices=TRUE_BOX_RULES, default='points', help='which annotated objects are true boxes'
    )
    parser.add_argument(
        '--model', nargs=2, metavar=('CONFIG', 'CHECKPOINT'), help='detector whose BEV --bev and --attention look into'
    )
    parser.add_argument('--bev', action='store_true', help='draw the BEV features of --sample as colours, with boxes')
    parser.add_argument(
        '--attention',
        nargs=2,
        type=float,
        metavar=('X', 'Y'),
        help='draw where the pillar X m to the right and Y m in front looks in the cameras of --sample',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace pictures in an existing folder')
    args = parser.parse_args()
    refuse_combinations(parser, args)
    return args


def refuse_combinations(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with the parser's error where options contradict each other or lack another one."""
    if not (args.sample or args.scene or args.best or args.worst):
        parser.error('say what to draw: --sample TOKEN, --scene NAME, --best K or --worst K')
    if (args.best or args.worst) and args.results is None:
        parser.error('--best and --worst need --results')
    inspects = args.bev or args.attention is not None
    if inspects and (args.model is None or not args.sample):
        parser.error('--bev and --attention look into a detector: give --model CONFIG CHECKPOINT and --sample TOKEN')
    if args.model is not None and not inspects:
        parser.error('--model has no effect without --bev or --attention X Y')
    others = ('results', 'tracks', 'maps', 'map_protocol', 'scene', 'best', 'worst')
    if inspects and (given := [name for name in others if getattr(args, name)]):
        options = ', '.join(f'--{name.replace("_", "-")}' for name in given)
        parser.error(
            f'--bev and --attention draw one sample with the boxes that the detector predicts: leave {options} out'
        )
    if args.results is not None and args.tracks is not None:
        parser.error('tracks are predicted boxes as well: give either --results or --tracks')
    if args.maps is not None and args.map_protocol is not None:
        parser.error('--maps says by which protocol its maps are: leave --map-protocol out')


def main() -> None:
    args = parse_args()
    try:
        check_score_threshold(args.score_thr)
        drawn = Path(args.maps) if args.maps else PROTOCOLS.get(args.map_protocol)
        source = FrameSource(args.root, args.infos, args.results, args.true_boxes, drawn, args.tracks)
        folder = check_folder(args.out, args.overwrite)
        paths = []
        if args.model is not None:
            pillar = None if args.attention is None else (args.attention[0], args.attention[1])
            inspector = BEVInspector(args.model[0], args.model[1], source, args.infos, pillar)
            paths += inspector.draw(args.sample, folder, args.bev, args.score_thr)
        elif args.sample:
            paths.append(draw_sample(source, args.sample, folder, args.score_thr))
        if args.scene:
            paths += draw_scene(source, args.scene, folder, args.score_thr)
        if args.best or args.worst:
            paths += draw_best_and_worst(source, args.best, args.worst, folder, args.score_thr)
    except (InputError, OSError) as error:
        sys.exit(f'error: {error}')
    print('wrote', *paths, sep='\n  ')


if __name__ == '__main__':
    main()
