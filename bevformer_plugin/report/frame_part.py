"""The part with the worst and the best keyframes as pictures."""

import numpy as np
from nuscenes.eval.detection.constants import DETECTION_NAMES

from bevformer_plugin.evaluation import TRACKS, SubmissionKind
from bevformer_plugin.evaluation.frame_scores import FrameScore

from .analysis import RunAnalysis
from .blocks import Block, FramePicture, Frames, Paragraph, Part, count_text, number
from .frame_pictures import KeyframePictures

WORST, BEST = 3, 3  # pictures of each run
SHOWN_SCORE = 0.3  # from which predicted boxes are drawn where no class has a threshold


def frame_part(
    run: RunAnalysis,
    view: str,
    pictures: KeyframePictures,
    entries: dict[str, list[dict]],
    kind: SubmissionKind,
    limit: int,
) -> Part:
    """Return the part with pictures of a run; where images are missing, a sentence says so.

    Args:
        run: the run.
        view: key of its view, with which the names of links to the frames begin.
        pictures: draws keyframes.
        entries: what is drawn, sample token -> entries: the submission, or tracks made of it.
        kind: which of the two.
        limit: bytes of each picture.
    """
    drawable = [frame for frame in run.frames if pictures.has_images(frame.token)]
    worst = drawable[:WORST]
    best = drawable[WORST:][::-1][:BEST]
    thresholds = dict(zip(DETECTION_NAMES, run.confusion.thresholds.tolist(), strict=True))
    lowest = min((score for score in thresholds.values() if np.isfinite(score)), default=SHOWN_SCORE)

    def picture(frame: FrameScore) -> FramePicture:
        shown = [entry for entry in entries[frame.token] if entry[kind.score] >= thresholds[entry[kind.name]]]
        note = f'AP at 2 m: {frame.score:.2f}'
        uri = pictures.draw(frame.token, shown, kind, round(lowest, 3), note, limit)
        return FramePicture(frame_key(view, frame), f'{frame.scene}, frame {frame.position}', _caption(frame), uri)

    blocks: list[Block] = [Paragraph(_which_images(len(drawable), len(run.frames)))]
    for title, frames in (('Worst', worst), ('Best', best)):
        if frames:
            blocks += [Paragraph(title, is_title=True), Frames(tuple(map(picture, frames)))]
    lead = (
        'Keyframes by their own AP at 2 m, the mean over the classes in them. Filled: true boxes; outlined: predicted '
        'ones, from the score on that gives their class its best F1'
        + (', in the colours of their tracks' if kind is TRACKS else '')
        + '. Click a picture to enlarge it.'
    )
    return Part('frames', 'Worst and best frames', lead, tuple(blocks))


def frame_key(view: str, frame: FrameScore) -> str:
    """Return the name of the link to a frame, such as ``run-0-frame-scene-0103-7``."""
    return f'{view}-frame-{frame.scene}-{frame.position}'


def _which_images(drawable: int, count: int) -> str:
    if not drawable:
        return (
            f'No pictures: none of the {count_text(count)} keyframes has the images of all its cameras below the '
            'dataroot.'
        )
    if drawable < count:
        return (
            f'Of the {count_text(count)} keyframes with true boxes, {count_text(drawable)} have the images of all '
            'their cameras below the dataroot; the worst and the best are of these.'
        )
    return f'Of {count_text(count)} keyframes with true boxes.'


def _caption(frame: FrameScore) -> str:
    return (
        f'AP at 2 m {number(frame.score, 2)}; {frame.found_count} of {frame.true_count} true boxes found, '
        f'{frame.false_count} false. Sample {frame.token}.'
    )
