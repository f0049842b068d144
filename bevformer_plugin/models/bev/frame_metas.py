"""What a frame's meta must hold before the detector begins with it."""

import numpy as np
import torch

from bevformer_plugin.errors import InputError

POSES = ('ego2global', 'lidar2ego')  # the detector does not need them; what makes results of its boxes does


def require_usable_frames(metas: list[dict], num_cameras: int) -> None:
    """Refuse frames with a calibration, CAN-bus vector, pose or time that the detector cannot use.

    Args:
        metas: per sample the frame's meta: ``lidar2img`` (N, 4, 4), ``can_bus`` (18,), ``timestamp``, and where they
            are given ``ego2global`` and ``lidar2ego`` (4, 4).
        num_cameras: that the model was built for.

    Raises:
        InputError: naming the sample and what is missing, of another shape or not finite, by camera or channel.
    """
    for meta in metas:
        missing = [name for name in ('lidar2img', 'can_bus', 'timestamp', 'scene_token') if name not in meta]
        if missing:
            raise InputError(f'the meta of sample {_name(meta)} lacks {", ".join(missing)}')
        lidar2img = _array(meta, 'lidar2img')
        if len(lidar2img) != num_cameras:
            raise InputError(
                f'the model was built for num_cameras={num_cameras}, got lidar2img of {len(lidar2img)} cameras in '
                f'sample {_name(meta)}'
            )
        _require_shape(meta, 'lidar2img', lidar2img, (num_cameras, 4, 4))
        if not np.isfinite(lidar2img).all():
            broken = np.flatnonzero(~np.isfinite(lidar2img).all(axis=(1, 2)))
            _refuse(meta, f'lidar2img of {", ".join(camera_name(meta, index) for index in broken)}')
        can_bus = _array(meta, 'can_bus')
        _require_shape(meta, 'can_bus', can_bus, (18,))
        if not np.isfinite(can_bus).all():
            _refuse(meta, f'can_bus in values {np.flatnonzero(~np.isfinite(can_bus)).tolist()}')
        if not np.isfinite(float(meta['timestamp'])):
            _refuse(meta, 'timestamp')
        for name in POSES:
            if name in meta:
                pose = _array(meta, name)
                _require_shape(meta, name, pose, (4, 4))
                if not np.isfinite(pose).all():
                    _refuse(meta, name)


def camera_name(meta: dict, index: int) -> str:
    """A camera by its name if the meta knows it, else by its place."""
    names = meta.get('cameras', ())
    return names[index] if index < len(names) else f'camera {index}'


def _array(meta: dict, name: str) -> np.ndarray:
    values = meta[name]
    try:
        array = values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
        return np.atleast_1d(array.astype(np.float64, copy=False))
    except (TypeError, ValueError):
        raise InputError(f'{name} of sample {_name(meta)} holds no numbers: {values}') from None


def _require_shape(meta: dict, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise InputError(f'{name} of sample {_name(meta)} has shape {array.shape}, not {shape}')


def _refuse(meta: dict, what: str) -> None:
    raise InputError(
        f'{what} of sample {_name(meta)} is not finite: mend its tables or CAN-bus messages. One such frame would '
        'make all later ones of its scene worthless'
    )


def _name(meta: dict) -> str:
    return str(meta.get('sample_idx', 'without sample_idx'))
