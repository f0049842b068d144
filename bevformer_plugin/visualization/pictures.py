"""Picture files: of one sample, of a scene with its video, of a submission's best and worst samples."""

from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import print_log
from tqdm import tqdm

from bevformer_plugin.atomic_write import atomic_write, refuse_unwritable_folder
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import DETECTIONS

from .frame_figure import draw_frame
from .frames import Frame, FrameSource
from .ranking import SCORE_NAME, sample_score

FRAMES_PER_SECOND = 4  # twice the pace of nuScenes' keyframes


def check_folder(folder: str | Path, overwrite: bool = False) -> Path:
    """Check that pictures can be written to a folder, which is made with the first of them, and return its path.

    Raises:
        FileExistsError: the folder holds something and ``overwrite`` is False.
        NotADirectoryError: there is a file of that name.
        OSError: the folder cannot be written to.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f'{folder} is a file: give a folder for the pictures')
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(f'{folder} is not empty: give another folder, or --overwrite to replace pictures in it')
    refuse_unwritable_folder(folder)
    return folder


def draw_sample(source: FrameSource, token: str, folder: Path, score_thr: float = 0.3) -> Path:
    """Write the picture of one sample and return its path.

    Raises:
        FileNotFoundError: an image is missing.
        InputError: there is no such sample, training would refuse an image, or ``score_thr`` is impossible.
    """
    return _draw(source.frame(token), folder, score_thr)


def draw_scene(source: FrameSource, scene: str, folder: Path, score_thr: float = 0.3) -> list[Path]:
    """Write a picture of each keyframe of a scene, and a video of them.

    Keyframes whose image files are missing, as in a part of a data set, are left out and named in the log.

    Args:
        source: the keyframes.
        scene: name or token of the scene.
        folder: folder for the files.
        score_thr: predicted boxes below this score are left out.

    Returns:
        The files written, the video last.

    Raises:
        FileNotFoundError: no keyframe of the scene has its images.
        InputError: there is no such scene, training would refuse an image, or ``score_thr`` is impossible.
        OSError: the video cannot be written.
    """
    tokens = source.tokens_of_scene(scene)
    paths: list[Path] = []
    problems: list[str] = []
    for token in tqdm(tokens, desc=f'pictures of {scene}', unit='frame'):
        try:
            paths.append(draw_sample(source, token, folder, score_thr))
        except FileNotFoundError as error:
            problems.append(str(error))
    if problems:
        print_log(f'left out {len(problems)} of the {len(tokens)} keyframes of {scene}:\n  ' + '\n  '.join(problems))
    if not paths:
        raise FileNotFoundError(f'no keyframe of {scene} could be drawn; the first: {problems[0]}')
    return [*paths, write_video(paths, folder / f'{scene}.mp4')]


def draw_best_and_worst(
    source: FrameSource, best: int, worst: int, folder: Path, score_thr: float = 0.3
) -> list[Path]:
    """Write pictures of the samples with the highest and the lowest :func:`sample_score`.

    The names of the files tell the rank. Samples without true boxes within range have no score and are not drawn; no
    sample is drawn twice.

    Returns:
        The files written, the best first.

    Raises:
        FileNotFoundError: an image is missing.
        InputError: there are no results to rank, training would refuse an image, or ``score_thr`` is impossible.
    """
    if source.results is None or source.kind is not DETECTIONS:
        raise InputError('best and worst samples need results: give --results results_nusc.json')
    scores = {
        token: score
        for token in tqdm(source.infos, desc='scores', unit='sample')
        if (score := sample_score(source.frame(token))) is not None
    }
    ranked = sorted(scores, key=scores.__getitem__, reverse=True)
    if not ranked:
        raise InputError('no sample has true boxes within range, so there is nothing to rank')
    print_log(
        f'{SCORE_NAME} of {len(ranked)} samples, mean over the classes in each: best {scores[ranked[0]]:.3f}, '
        f'median {np.median([scores[token] for token in ranked]):.3f}, worst {scores[ranked[-1]]:.3f}'
    )
    chosen = [(f'best_{rank:02d}_', token) for rank, token in enumerate(ranked[:best], start=1)]
    chosen += [(f'worst_{rank:02d}_', token) for rank, token in enumerate(ranked[best:][::-1][:worst], start=1)]
    return [
        _draw(source.frame(token), folder, score_thr, prefix)
        for prefix, token in tqdm(chosen, desc='pictures', unit='frame')
    ]


def _draw(frame: Frame, folder: Path, score_thr: float, prefix: str = '') -> Path:
    """Write the picture of a keyframe and return its path."""
    # Tracks are of seven classes, so that the score of detections would mislead.
    is_tracked = frame.predictions is not None and frame.predictions.ids is not None
    score = None if is_tracked else sample_score(frame)
    picture = draw_frame(frame, score_thr, note='' if score is None else f'{SCORE_NAME}: {score:.2f}')
    info = frame.info
    path = folder / f'{prefix}{info["scene_name"]}_{info["frame_idx"]:03d}_{info["token"][:8]}.png'
    return write_picture(picture, path)


def write_picture(picture: np.ndarray, path: Path) -> Path:
    """Write a picture, (H, W, 3) uint8 BGR, to a PNG file and return its path.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write(cv2.imencode('.png', picture)[1].tobytes())
    return path


def write_video(pictures: list[Path], path: Path, frames_per_second: float = FRAMES_PER_SECOND) -> Path:
    """Write an MP4 of picture files and return its path; browsers and players can show its codec, VP9.

    Args:
        pictures: at least one, all of the same even width and height.
        path: of the video.
        frames_per_second: of the video.

    Raises:
        OSError: the video cannot be written.
    """
    height, width = cv2.imread(str(pictures[0])).shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'vp09'), frames_per_second, (width, height))
    if not writer.isOpened():
        raise OSError(f'OpenCV cannot write the video {path}; the pictures beside it are complete')
    for picture in pictures:
        writer.write(cv2.imread(str(picture)))
    writer.release()
    return path
