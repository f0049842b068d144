"""The CAN-bus vector of a keyframe: where the vehicle is (pose tables) and how it moves (recorded messages).

Layout (18): translation (3, metres, global frame), quaternion (4, w x y z), acceleration (3, m/s^2), rotation rate (3,
rad/s), velocity (3, m/s), heading in radians [0, 2 pi), heading in degrees [0, 360).
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nuscenes.can_bus.can_bus_api import NuScenesCanBus
from nuscenes.eval.common.utils import quaternion_yaw
from pyquaternion import Quaternion

from bevformer_plugin.errors import InputError

from .numeric_checks import finite_rows
from .row_checks import LARGEST_CLOCK_ERROR

RECORDED = slice(7, 16)
WITHOUT_POSE = slice(3, 16)  # what ego2global does not say: the quaternion with its sign, and what was recorded
RECORDED_CHANNELS = ('accel', 'rotation_rate', 'vel')  # keys of a message, three numbers each
CAN_BUS_RULES = ('nearest', 'official_v1')
FARTHEST_MESSAGE = 500_000  # microseconds; a message farther from its keyframe says nothing about the keyframe


def find_can_bus(root: str | Path, can_bus_dir: str | Path | None = None) -> Path | None:
    """Find the folder of ``scene-XXXX_pose.json`` files.

    Args:
        root: nuScenes dataroot; ``root/can_bus`` is taken if no other folder is given.
        can_bus_dir: the folder, named ``can_bus``, or its parent.

    Returns:
        The folder, or None if none is given and ``root`` holds none: CAN bus is optional.

    Raises:
        FileNotFoundError: a folder is given and does not exist.
    """
    candidates = [Path(can_bus_dir), Path(can_bus_dir, 'can_bus')] if can_bus_dir else [Path(root, 'can_bus')]
    for folder in candidates:
        if folder.name == 'can_bus' and folder.is_dir():
            return folder
    if can_bus_dir:
        raise FileNotFoundError(
            f'no CAN-bus folder at {candidates[0]} or {candidates[1]}: give the folder named can_bus that '
            'holds scene-0001_pose.json and so on, or leave it out to do without recorded messages'
        )
    return None


class CanBusMessages:
    """Recorded pose messages, scene by scene.

    Args:
        folder: from :func:`find_can_bus`; None means that nothing was recorded.
        rule: which message belongs to a keyframe. 'nearest' is the nearest in time; 'official_v1' is the first one
            after the keyframe, or the last one of all, as in the info files of the published BEVFormer, whose weights
            have learned this mistake. By both rules no message farther off than half a second belongs to a keyframe.

    Raises:
        InputError: an unknown rule.
    """

    def __init__(self, folder: Path | None, rule: str = 'nearest') -> None:
        if rule not in CAN_BUS_RULES:
            raise InputError(f'which CAN-bus message belongs to a sample is one of {CAN_BUS_RULES}, got {rule!r}')
        self.rule = rule if folder else 'none'
        self.folder = folder
        # The devkit lists scenes of nuScenes whose recordings are not to be used.
        numbers = NuScenesCanBus(str(folder.parent)).can_blacklist if folder else ()
        self.unusable = {f'scene-{number:04d}' for number in numbers}

    def of_keyframes(self, name: str, timestamps: list[int], most: int = LARGEST_CLOCK_ERROR) -> list[dict | None]:
        """Return the message that belongs to each keyframe of a scene, None if none is within half a second.

        Args:
            name: name of the scene.
            timestamps: timestamps of its keyframes in microseconds.
            most: microseconds from the nearest keyframe to the nearest message beyond which all are refused.

        Raises:
            InputError: the scene's file cannot be read, a message lacks its time, or there are messages but all are
                of another time than the keyframes.
        """
        messages = self._of_scene(name)
        if not messages or not timestamps:
            return [None] * len(timestamps)
        times = np.array([message['utime'] for message in messages], dtype=np.float64)
        if self.rule == 'official_v1':
            chosen = np.minimum(np.searchsorted(times, timestamps, side='right'), len(times) - 1)
        else:
            chosen = np.array([np.abs(times - timestamp).argmin() for timestamp in timestamps])
        gaps = np.abs(times[chosen] - timestamps)
        if gaps.min() > most:
            raise InputError(
                f'{self._file(name)} has {len(messages)} messages, but none belongs to a keyframe of '
                f'{name}: the nearest is {gaps.min() / 1e6:g} s off, {FARTHEST_MESSAGE / 1e6:g} s is the most; utime '
                "is in microseconds of the samples' clock"
            )
        is_near = (gaps <= FARTHEST_MESSAGE).tolist()
        return [messages[index] if near else None for index, near in zip(chosen.tolist(), is_near, strict=True)]

    def has_file(self, name: str) -> bool:
        """Return whether a scene has a file of messages that is to be used."""
        return self.folder is not None and name not in self.unusable and self._file(name).is_file()

    def _file(self, name: str) -> Path:
        assert self.folder is not None
        # The devkit's get_messages asserts that scenes are named like scene-0001, and own scenes need not be.
        return self.folder / f'{name}_pose.json'

    def _of_scene(self, name: str) -> list[dict]:
        """Return the pose messages of a scene in time order, an empty list if nothing was recorded.

        Raises:
            InputError: the scene's file cannot be read, or a message lacks its time.
        """
        if not self.has_file(name):
            return []
        path = self._file(name)
        try:
            messages = json.loads(path.read_text())
            times = finite_rows([message['utime'] for message in messages], (), lambda index: f'utime {index}')
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f'{path} is no list of CAN-bus messages with a utime ({type(error).__name__}: {error}): unpack the '
                'CAN-bus expansion again'
            ) from error
        return [messages[index] for index in np.argsort(times, kind='stable')]


def recorded_channels(message: dict | None, where: str) -> list[float]:
    """Return the acceleration, rotation rate and velocity of a message, 9 numbers, or zeros for None.

    Args:
        message: from :meth:`CanBusMessages.of_keyframes`.
        where: names the sample in an error.

    Raises:
        InputError: a channel is missing, not three numbers, or not finite.
    """
    if message is None:
        return [0.0] * 9

    def describe(index: int) -> str:
        time = message['utime']
        return f'{where}: channel {RECORDED_CHANNELS[index]} of its CAN-bus message (utime {time})'

    return finite_rows([message.get(key) for key in RECORDED_CHANNELS], (3,), describe).ravel().tolist()


def can_bus_vector(
    translation: Sequence[float], rotation: Sequence[float], recorded: Sequence[float] | np.ndarray
) -> list[float]:
    """Make the CAN-bus vector of a keyframe, 18 numbers whose layout the module's docstring gives.

    Args:
        translation: (3,) of the vehicle in the global frame, metres.
        rotation: (4,) quaternion w, x, y, z of the vehicle in the global frame.
        recorded: (9,) see :func:`recorded_channels`.
    """
    degrees = quaternion_yaw(Quaternion(rotation)) / math.pi * 180 % 360
    return [
        *map(float, translation),
        *map(float, rotation),
        *map(float, recorded),
        degrees / 180 * math.pi,
        float(degrees),
    ]
