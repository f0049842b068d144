"""Whether what an earlier frame left behind counts for a later one."""

import logging
from typing import TypeVar

from mmengine.logging import print_log

from .frames import Frame, History

AnyHistory = TypeVar('AnyHistory', bound=History)


def usable_history(
    history: AnyHistory | None, frame: Frame, max_time_gap: float, warned_of: set[str]
) -> AnyHistory | None:
    """Return the history if it counts for a frame, else None; reasons other than a new scene are logged once.

    Args:
        history: what the previous frame left behind, if there was one.
        frame: the frame that is to use it.
        max_time_gap: seconds after which a previous frame is too old to count.
        warned_of: reasons that were logged already; a new one is added.
    """
    gap = None if history is None else history.seconds_to(frame)
    if gap is None:
        return None
    if 0 < gap <= max_time_gap:
        return history
    if gap > 0:
        problem = f'farther apart than max_time_gap={max_time_gap:g} s'
        remedy = (
            'set model.max_time_gap for slower frames, or treat every frame alone (model.use_history=False; of '
            'BEVFormerV2 model.frame_offsets=[0] and model.bev_fusion=None)'
        )
    else:
        problem = 'not in the order of their timestamps'
        remedy = 'give them in that order, and call reset_streams() before a scene begins again'
    if problem not in warned_of:
        warned_of.add(problem)
        print_log(
            f'frames of scene {frame.scene} are {problem}: sample {frame.name} is {gap:g} s after the one before, '
            'which is therefore not used as history; the same holds wherever frames are so. To mend it, ' + remedy,
            logger='current',
            level=logging.WARNING,
        )
    return None
