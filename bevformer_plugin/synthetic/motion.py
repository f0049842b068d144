"""Speed over time, and the actors that stand still or follow the street at such a speed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from bevformer_plugin.synthetic.road import Road
from bevformer_plugin.synthetic.shapes import build_model
from bevformer_plugin.synthetic.solids import Model

TIME_STEP = 0.02  # seconds between two values of a speed profile
TIME_MARGIN = 30.0  # seconds that a speed profile covers before and after its scene
MAX_SPEED = 12.0  # m/s


class SpeedProfile:
    """Speed on a time grid, and the distance driven since time 0.

    Args:
        duration: seconds of the scene; the profile covers ``TIME_MARGIN`` seconds more on both sides.
        speed: function of an array of times in seconds that returns speeds in m/s.
    """

    def __init__(self, duration: float, speed: Callable[[np.ndarray], np.ndarray]) -> None:
        self.times = np.arange(-TIME_MARGIN, duration + TIME_MARGIN, TIME_STEP)
        self._speed = np.clip(speed(self.times), 0.0, MAX_SPEED)
        steps = 0.5 * (self._speed[1:] + self._speed[:-1]) * TIME_STEP
        distance = np.concatenate([[0.0], np.cumsum(steps)])
        self._distance = distance - np.interp(0.0, self.times, distance)

    def distance(self, times: ArrayLike) -> np.ndarray:
        """Return the metres driven from time 0 to each of the times, negative before it."""
        return np.interp(np.asarray(times, dtype=float), self.times, self._distance)

    def speed(self, times: ArrayLike) -> np.ndarray:
        """Return the speed in m/s at each of the times."""
        return np.interp(np.asarray(times, dtype=float), self.times, self._speed)


def sample_profile(duration: float, mean_speed: float, stops: bool, rng: np.random.Generator) -> SpeedProfile:
    """Draw a gently varying speed; with ``stops`` the vehicle halts for some seconds within the scene."""
    period, phase, depth = rng.uniform(7, 14), rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.25)
    halt = rng.uniform(0.15, 0.45) * duration
    leave = halt + rng.uniform(0.2, 0.35) * duration
    brake = mean_speed / 2.5 + 0.5

    def speed(times: np.ndarray) -> np.ndarray:
        values = mean_speed * (1 + depth * np.sin(2 * np.pi * times / period + phase))
        if stops:
            values = values * (1 - _ramp((times - halt + brake) / brake) + _ramp((times - leave) / (1.3 * brake)))
        return values

    return SpeedProfile(duration, speed)


def constant_profile(duration: float, speed: float) -> SpeedProfile:
    """Make the profile of something that always moves at one speed, in m/s."""
    return SpeedProfile(duration, lambda times: np.full_like(times, speed))


def _ramp(x: np.ndarray) -> np.ndarray:
    """Rise smoothly from 0 where x is 0 or less to 1 where x is 1 or more."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


@dataclasses.dataclass(frozen=True)
class Track:
    """How a moving actor follows the street.

    Attributes:
        profile: its speed along the centre line.
        arc, lateral: where it is at profile time 0, metres along and left of the centre line.
        direction: 1 along the street, -1 against it.
        shift: how many seconds it is ahead of the profile.
    """

    profile: SpeedProfile
    arc: float
    lateral: float
    direction: int = 1
    shift: float = 0.0

    def arcs(self, times: ArrayLike) -> np.ndarray:
        """Return the arc length in metres at times (n,)."""
        return self.arc + self.direction * self.profile.distance(np.asarray(times) + self.shift)

    def poses(self, road: Road, times: ArrayLike) -> np.ndarray:
        """Return the poses (n, 3) of x, y and yaw at times (n,)."""
        poses = road.poses(self.arcs(times), self.lateral)
        if self.direction < 0:
            poses[..., 2] += np.pi
        return poses

    def speeds(self, road: Road, times: ArrayLike) -> np.ndarray:
        """Return the speeds (n,) over ground, in m/s, at times (n,)."""
        along = self.profile.speed(np.asarray(times) + self.shift)
        return along * road.stretch(self.arcs(times), self.lateral)


@dataclasses.dataclass(frozen=True)
class Actor:
    """An object of one of the ten classes, a building or a tree.

    Attributes:
        name: detection class, 'building' or 'tree'.
        category: nuScenes category, '' for scenery.
        size: (length, width, height) metres.
        motion: a ``Track``, or the pose (x, y, yaw) of an actor that stands still.
        look: seed of colour and variant.
        parked: whether nobody is going to move the vehicle.
        rider: whether somebody sits on the two-wheeler.
        walking: whether the pedestrian's legs are apart.
    """

    name: str
    category: str
    size: tuple[float, float, float]
    motion: Track | tuple[float, float, float]
    look: int
    parked: bool = False
    rider: bool = False
    walking: bool = False

    @functools.cached_property
    def model(self) -> Model:
        """The actor's solids, built when they are first asked for."""
        return build_model(self.name, self.size, np.random.default_rng(self.look), self.rider, self.walking)

    @property
    def moves(self) -> bool:
        """Whether the actor follows a track."""
        return isinstance(self.motion, Track)

    def poses(self, road: Road, times: ArrayLike) -> np.ndarray:
        """Return the poses (n, 3) of x, y and yaw at times (n,)."""
        times = np.asarray(times, dtype=float)
        if isinstance(self.motion, Track):
            return self.motion.poses(road, times)
        return np.broadcast_to(np.array(self.motion, dtype=float), (len(times), 3))

    def speeds(self, road: Road, times: ArrayLike) -> np.ndarray:
        """Return the speeds (n,) in m/s at times (n,)."""
        times = np.asarray(times, dtype=float)
        return self.motion.speeds(road, times) if isinstance(self.motion, Track) else np.zeros(len(times))
