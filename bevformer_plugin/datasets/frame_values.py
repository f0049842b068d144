"""Poses, calibrations and CAN-bus vectors of info files: what is broken is refused before anything is loaded."""

import numpy as np


def shaped(values: object, shape: tuple[int, ...], name: str, token: str) -> np.ndarray:
    """Numbers of an info file's entry as a new float64 array.

    Args:
        values: nested lists or an array.
        shape: which they must have.
        name: of the entry's field, for the error.
        token: of the sample, for the error.

    Raises:
        ValueError: if they are no numbers or have another shape.
    """
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f'{name} of sample {token} holds no numbers of shape {shape}: {values}') from None
    if array.shape != shape:
        raise ValueError(f'{name} of sample {token} has shape {array.shape}, not {shape}: make the infos again')
    return array


def require_finite_frames(frames: list[dict]) -> None:
    """Refuse the first frame with a time, pose, calibration or CAN-bus value that is NaN or infinite.

    Args:
        frames: entries of the dataset; ``images`` of the same cameras in all.

    Raises:
        ValueError: naming sample, field, and camera or CAN-bus channels.
    """
    for name in ('timestamp', 'ego2global', 'lidar2ego', 'can_bus'):
        _require_finite(np.stack([np.asarray(frame[name]) for frame in frames]), frames, name)
    for camera in frames[0]['images']:
        matrices = np.stack([frame['images'][camera]['lidar2img'] for frame in frames])
        _require_finite(matrices, frames, f'the calibration of {camera}')


def _require_finite(values: np.ndarray, frames: list[dict], name: str) -> None:
    """``values`` are (F, ...), one block a frame."""
    finite = np.isfinite(values).reshape(len(frames), -1)
    broken = np.flatnonzero(~finite.all(axis=1))
    if len(broken):
        first = frames[broken[0]]
        channels = f' in values {np.flatnonzero(~finite[broken[0]]).tolist()}' if name == 'can_bus' else ''
        raise ValueError(
            f'{name} of sample {first["token"]} (scene {first["scene_name"]}, frame {first["frame_idx"]}) is not '
            f'finite{channels} ({len(broken)} of {len(frames)} samples are so): mend the tables or CAN-bus messages '
            'of the scene and make the infos again'
        )
