"""Checks of settings that must be texts, lists of names, switches, sizes or ranges, or that are for training alone.

Values come from Python files and from the command line, on which ``a,b`` is a list and ``5`` a number: a value of
another type is refused where it enters, before it fails somewhere else.
"""

import os

from bevformer_plugin.errors import InputError

DEFAULT_QUEUE_LENGTH = 4  # frames of a training item of the published BEVFormer-base


def check_text(name: str, value: object) -> None:
    """Refuse a setting that is no text.

    Args:
        name: name of the setting.
        value: its value.

    Raises:
        InputError: naming both, and how to write a text.
    """
    if isinstance(value, str):
        return
    written = ','.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    raise InputError(
        f'{name} must be a text, not {value!r} of type {type(value).__name__}; if that is its name, put quotes around '
        f'it, on the command line too: "{name}=\'{written}\'"'
    )


def check_path(name: str, value: object) -> None:
    """Refuse a setting that is neither a text nor a path, with the error of :func:`check_text`."""
    if not isinstance(value, os.PathLike):
        check_text(name, value)


def check_names(name: str, value: object) -> None:
    """Refuse a setting that is no list of names, or an empty list.

    Args:
        name: name of the setting.
        value: its value.

    Raises:
        InputError: naming both, and how to write a list of names.
    """
    if isinstance(value, str):
        names = [part.strip() for part in value.split(',')]
        raise InputError(f'{name} must be a list of names, not the text {value!r}: put it in brackets, {name}={names}')
    if not isinstance(value, (list, tuple)) or not all(isinstance(entry, str) for entry in value):
        raise InputError(
            f"{name} must be a list of names, not {value!r}: put names in brackets, such as {name}=['a','b']"
        )
    if not value:
        raise InputError(f'{name} is empty: name at least one, or leave the setting out')


def check_switch(name: str, value: object) -> None:
    """Refuse a setting that is neither True nor False; any text but '' would count as True.

    Raises:
        InputError: naming the setting and its value.
    """
    if not isinstance(value, bool):
        raise InputError(f'{name} must be True or False, not {value!r}')


def checked_image_size(image_size: object) -> tuple[int, int] | None:
    """Return an ``image_size`` as a tuple of two ints, or None.

    Raises:
        InputError: it is neither None nor two positive whole numbers.
    """
    if image_size is None:
        return None
    size = tuple(image_size) if isinstance(image_size, (list, tuple)) else ()
    if len(size) != 2 or not all(isinstance(length, int) and length > 0 for length in size):
        raise InputError(f'image_size must be (width, height) in whole pixels, such as (800, 450), not {image_size!r}')
    width, height = size
    return width, height


def checked_queue(queue_length: object, random_drop: object, frame_offsets: object) -> tuple[int, bool]:
    """Return ``queue_length`` and ``random_drop`` as they are given, or else their defaults.

    Raises:
        InputError: one of them is given beside ``frame_offsets``, which decide about the frames of an item, or they
            are no whole number from 1 and no switch.
    """
    if frame_offsets is not None and (queue_length is not None or random_drop is not None):
        raise InputError(
            f'frame_offsets={frame_offsets!r} decides about the frames of an item: leave queue_length and '
            'random_drop out'
        )
    length = DEFAULT_QUEUE_LENGTH if queue_length is None else queue_length
    drop = True if random_drop is None else random_drop
    check_switch('random_drop', drop)
    if not isinstance(length, int) or length < 1:
        raise InputError(
            f'queue_length must be a whole number and at least 1, the current frame alone, not {length!r}'
        )
    return length, bool(drop)


def check_range(point_cloud_range: object) -> None:
    """Refuse a ``point_cloud_range`` that is no box.

    Raises:
        InputError: it is neither None nor three minima and three larger maxima.
    """
    if point_cloud_range is None:
        return
    limits = point_cloud_range if isinstance(point_cloud_range, (list, tuple)) else ()
    is_box = len(limits) == 6 and all(isinstance(limit, (int, float)) for limit in limits)
    if not is_box or not all(low < high for low, high in zip(limits[:3], limits[3:], strict=True)):
        raise InputError(
            'point_cloud_range must be [x, y, z, x, y, z], minima and then larger maxima in metres, such as '
            f'[-51.2, -51.2, -5.0, 51.2, 51.2, 3.0], not {point_cloud_range!r}'
        )


def checked_metainfo(metainfo: object) -> dict:
    """Return ``metainfo`` as a dict, an empty one for None.

    Raises:
        InputError: it is of another type.
    """
    if metainfo is not None and not isinstance(metainfo, dict):
        raise InputError(f"metainfo must be a dict such as dict(classes=['car', 'bus']), not {metainfo!r}")
    return metainfo or {}


def refuse_settings_of_training(settings: dict[str, object]) -> None:
    """Refuse settings of training items in a dataset of single frames, which none of them changes.

    Args:
        settings: values by name, None for those that are not set.

    Raises:
        InputError: naming the first one that is set.
    """
    for name, value in settings.items():
        if value is not None:
            raise InputError(
                f'{name} is for training, in test_mode it has no effect: every frame counts and comes alone, and a '
                f'detector carries its history from frame to frame; leave {name} out'
            )
