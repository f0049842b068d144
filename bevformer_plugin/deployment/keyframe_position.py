"""Where a frame of own cameras stands among the keyframes that a BEVFormerV2 fuses."""

from bevformer_plugin.errors import InputError
from bevformer_plugin.models import FeatureHistory, Frame

KEYFRAME_SECONDS = 0.5  # between the keyframes of nuScenes, which frame_offsets count
LARGEST_DEVIATION = 0.1  # seconds


def keyframe_position(frame: Frame, history: FeatureHistory | None, max_time_gap: float) -> int:
    """Count the half seconds from the beginning of a stream to a frame, by its time after the frame before.

    Args:
        frame: the current one.
        history: what the frame before left behind; None begins a stream.
        max_time_gap: seconds after which the detector does not use a history, so that a stream begins anew.

    Raises:
        InputError: as :func:`keyframes_within`.
    """
    gap = None if history is None else history.seconds_to(frame)
    if history is None or gap is None or gap > max_time_gap:
        return 0
    return history.position + keyframes_within(gap)


def keyframes_within(gap: float) -> int:
    """Count the half seconds between two frames that follow each other.

    Args:
        gap: seconds.

    Raises:
        InputError: if it is not a whole number of half seconds, give or take a tenth of a second.
    """
    keyframes = round(gap / KEYFRAME_SECONDS)
    if keyframes < 1 or abs(gap - keyframes * KEYFRAME_SECONDS) > LARGEST_DEVIATION:
        raise InputError(
            f'a frame comes {gap:.3g} s after the one before, and a BEVFormerV2 of several frames fuses keyframes '
            f'{KEYFRAME_SECONDS:g} s apart: give it those frames that are {KEYFRAME_SECONDS:g} s apart, within '
            f'{LARGEST_DEVIATION:g} s; some of them may be missing'
        )
    return keyframes
