"""Checks of the numbers in tables, messages and info files: their shape, that they are finite, valid rotations."""

from collections.abc import Callable, Sequence

import numpy as np

from bevformer_plugin.errors import InputError

NORM_TOLERANCE = 0.01  # how far the length of a quaternion may be from 1, as of one written with three decimals
LEAST_UPWARD = 0.5  # z component of an axis that is tipped over by 60 degrees


def finite_rows(
    values: Sequence, shape: tuple[int, ...], describe: Callable[[int], str], unknown_as_nan: bool = False
) -> np.ndarray:
    """Turn many values of one kind into an array and refuse values that are not finite numbers.

    Args:
        values: n values, each nested lists or an array of ``shape``.
        shape: shape of one value, () for plain numbers.
        describe: names the value of a given number in an error, such as 'translation of ego_pose 4f5e'.
        unknown_as_nan: let NaN pass, which stands for "unknown"; infinity never passes.

    Returns:
        (n, *shape) float64.

    Raises:
        InputError: naming the first value that is of another shape, no number, or not finite, and how many are not.
    """
    array = _as_array(values, shape)
    if array is None:
        index = next(i for i, value in enumerate(values) if _as_array([value], shape) is None)
        wanted = ' x '.join(map(str, shape)) + ' numbers' if shape else 'a number'
        raise InputError(f'{describe(index)} is {_short(values[index])}, not {wanted}')
    is_good = ~np.isinf(array) if unknown_as_nan else np.isfinite(array)
    require_all(is_good.all(tuple(range(1, is_good.ndim))), values, describe, 'is not finite')
    return array


def require_all(is_good: np.ndarray, values: Sequence, describe: Callable[[int], str], complaint: str) -> None:
    """Refuse values if any of them is not good.

    Args:
        is_good: (n,) bool, whether each value passes.
        values: n values.
        describe: names the value of a given number in an error.
        complaint: what is wrong with a value that does not pass, such as 'is not positive'.

    Raises:
        InputError: naming the first value that does not pass, the complaint, and how many more there are.
    """
    if is_good.all():
        return
    bad = np.flatnonzero(~is_good)
    others = f' (and {len(bad) - 1} more)' if len(bad) > 1 else ''
    raise InputError(f'{describe(int(bad[0]))} {complaint}: {_short(values[bad[0]])}{others}')


def require_unit_quaternions(quaternions: np.ndarray, describe: Callable[[int], str]) -> None:
    """Refuse quaternions (n, 4) whose length is not 1, such as zeros or angles written in place of a quaternion.

    Raises:
        InputError: naming the first of them.
    """
    lengths = np.linalg.norm(quaternions, axis=1)
    is_unit = np.abs(lengths - 1) <= NORM_TOLERANCE
    require_all(is_unit, quaternions.tolist(), describe, 'is no rotation: a quaternion w, x, y, z has length 1')


def require_upright_quaternions(quaternions: np.ndarray, describe: Callable[[int], str]) -> None:
    """Refuse unit quaternions (n, 4; w, x, y, z) that tip the z axis over by more than 60 degrees.

    Raises:
        InputError: naming the first of them.
    """
    upward = 1 - 2 * (quaternions[:, 1] ** 2 + quaternions[:, 2] ** 2)
    complaint = 'tips the z axis over, which points up: quaternions are w, x, y, z'
    require_all(upward > LEAST_UPWARD, quaternions.tolist(), describe, complaint)


def require_intrinsics(matrices: np.ndarray, sizes: np.ndarray, describe: Callable[[int], str]) -> None:
    """Refuse camera matrices (n, 3, 3) that do not fit images of ``sizes`` (n, 2: width, height).

    The focal lengths must be positive, the last row 0, 0, 1, and the principal point within the image; it is outside
    if images were made smaller and the calibration was not scaled with them.

    Raises:
        InputError: naming the first of them.
    """
    values = matrices.tolist()
    is_pinhole = (matrices[:, [0, 1], [0, 1]] > 0).all(1) & (np.abs(matrices[:, 2] - [0, 0, 1]) < 1e-6).all(1)
    complaint = 'is no camera matrix: it needs positive focal lengths and the last row 0, 0, 1'
    require_all(is_pinhole, values, describe, complaint)
    centres = matrices[:, :2, 2]
    is_inside = ((centres > 0) & (centres < sizes)).all(1)

    def describe_both(index: int) -> str:
        return f'{describe(index)}, of images of {sizes[index, 0]:g} x {sizes[index, 1]:g} pixels,'

    complaint = 'has its principal point outside the image: give the calibration of images of this size'
    require_all(is_inside, values, describe_both, complaint)


def _as_array(values: Sequence, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return values as a float64 array (n, *shape), or None if one is of another shape or no number."""
    try:
        array = np.asarray(values)
    except ValueError:  # NumPy raises it for lists of different lengths
        return None
    if not len(values):
        return np.zeros((0, *shape))
    return array.astype(np.float64) if array.dtype.kind in 'iuf' and array.shape == (len(values), *shape) else None


def _short(value: object) -> str:
    """Write a value in at most 120 characters."""
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + '...'
