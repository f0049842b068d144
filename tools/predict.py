#!/usr/bin/env python
"""Predict on own cameras: python tools/predict.py CONFIG CHECKPOINT --frames FOLDER --rig rig.yaml --out DIR"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the imports take seconds, and Ctrl-C then should show no traceback

import numpy as np
from tqdm import tqdm

from bevformer_plugin.atomic_write import atomic_write
from bevformer_plugin.deployment import Rig, StreamPredictor, check_rig
from bevformer_plugin.deployment.frame_folder import (
    FrameFiles,
    Trajectory,
    count_unused,
    find_frames,
    read_frames,
    require_sizes,
)
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import write_map
from bevformer_plugin.visualization import check_folder, check_score_threshold, write_picture, write_video

LONGEST_GAP = 1.0  # seconds between poses; over more, a pose between two of them is a guess
MAPS = 'maps'  # folder of predicted maps in --out, in the form of tools/test.py --maps-out


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Detect objects, or predict the map, in the images of own cameras.')
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--frames', required=True, help='folder of CAMERA/SECONDS.jpg')
    parser.add_argument('--rig', required=True, help='YAML file of the cameras, see docs/own_cameras.md')
    parser.add_argument('--poses', help='CSV: timestamp,x,y,yaw or timestamp,x,y,z,qw,qx,qy,qz; none: no history')
    parser.add_argument('--out', required=True, help='folder for detections.jsonl, pictures and maps')
    parser.add_argument('--video', action='store_true', help='write a video of the pictures as well')
    parser.add_argument('--score-thr', type=float, default=0.3, help='leave out boxes below it, 0 to 1')
    parser.add_argument('--max-offset', type=float, default=0.05, help='seconds between cameras of one frame')
    parser.add_argument('--device', default='auto', help='cpu, cuda, cuda:1, ...')
    parser.add_argument('--no-optimize', action='store_true', help='the exact numbers of tools/test.py, slower')
    parser.add_argument('--overwrite', action='store_true', help='replace results in an existing folder')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        check_score_threshold(args.score_thr)
        rig = Rig.from_file(args.rig)
        files = find_frames(args.frames, rig, args.max_offset)
        trajectory = None if args.poses is None else Trajectory.from_file(args.poses)
        poses = None if trajectory is None else [trajectory.at(frame.timestamp) for frame in files]
        gaps = [] if trajectory is None else [trajectory.gap_at(frame.timestamp) for frame in files]
        guessed = [gap for gap in gaps if gap > LONGEST_GAP]
        if guessed:
            print(
                f'warning: {len(guessed)} frames lie between poses up to {max(guessed):.1f} s apart: they are '
                'taken to be on a straight line between them',
                file=sys.stderr,
            )
        require_sizes(files, rig)
        times = [frame.timestamp for frame in files]
        for finding in check_rig(rig, poses=poses, timestamps=times):
            print(f'warning: {finding.message} ({finding.fault})', file=sys.stderr)
        unused = count_unused(args.frames, rig, files)
        if unused:
            print(
                f'warning: {unused} images are of no frame: the camera with most images, of which each makes a frame, '
                'has none within --max-offset of them',
                file=sys.stderr,
            )
        folder = check_folder(args.out, args.overwrite)
        predictor = StreamPredictor.from_checkpoint(
            args.config, args.checkpoint, args.device, optimize=not args.no_optimize
        )
        if poses:
            predictor.require_times(times)
        run(predictor, files, rig, poses or [None] * len(files), folder, args.score_thr, args.video)
    except (InputError, OSError) as error:
        sys.exit(f'error: {error}')


def run(
    predictor: StreamPredictor,
    files: Sequence[FrameFiles],
    rig: Rig,
    poses: Sequence[np.ndarray | None],
    folder: Path,
    score_thr: float,
    video: bool,
) -> None:
    """Detect frame by frame, write boxes and map, and say how long it took."""
    lines, pictures, seconds = [], [], []
    state = predictor.reset()
    for number, frame in enumerate(tqdm(read_frames(files, rig, poses), total=len(files), unit='frame')):
        start = time.perf_counter()
        detections, state = predictor.step(frame.images, frame.rig, frame.pose, frame.timestamp, state)
        seconds.append(time.perf_counter() - start)
        name = f'{number:06d}'
        line = detections.above(score_thr).to_dict('ego' if frame.pose is None else 'global')
        if detections.map is not None:
            written_to = write_map(folder / MAPS, detections.map.protocol, name, detections.map.probabilities)
            line['map'] = str(written_to.relative_to(folder))
        lines.append(json.dumps(line))
        path = folder / f'{name}.png'
        pictures.append(write_picture(detections.draw(frame.images, score_thr, title=path.stem), path))
    with atomic_write(folder / 'detections.jsonl') as file:
        file.write('\n'.join([*lines, '']).encode())
    written = [folder / 'detections.jsonl', f'{len(pictures)} pictures']
    if predictor.map_protocol is not None:
        written.append(f'{len(pictures)} maps by protocol {predictor.map_protocol.name!r} in {folder / MAPS}')
    if video:
        span = files[-1].timestamp - files[0].timestamp
        rate = (len(files) - 1) / span if len(files) > 1 else 1.0
        written.append(write_video(pictures, folder / 'video.mp4', rate))
    print('wrote', *written, sep='\n  ')
    masked = sum(path is None for frame in files for path in frame.paths.values())
    if masked:
        print(f'{masked} times a camera had no image near enough in time (--max-offset) and was masked')
    later = seconds[1:] or seconds
    print(
        f'{len(later) / sum(later):.2f} frames a second without reading and drawing (first frame: {seconds[0]:.1f} s)'
    )


if __name__ == '__main__':
    main()
