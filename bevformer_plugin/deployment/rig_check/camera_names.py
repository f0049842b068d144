"""Directions that names of cameras tell, such as CAM_FRONT_LEFT, rearRight or fl."""

import re
from dataclasses import dataclass

import numpy as np

WORDS = {'ahead': ('front', 'forward', 'fwd'), 'behind': ('back', 'rear'), 'left': ('left',), 'right': ('right',)}
ABBREVIATIONS = {
    'fl': {'ahead', 'left'},
    'fr': {'ahead', 'right'},
    'bl': {'behind', 'left'},
    'rl': {'behind', 'left'},
    'br': {'behind', 'right'},
    'rr': {'behind', 'right'},
}
STEREO = 'stereo'  # in the name of a camera of a pair, whose left and right are places, not directions
# By what a name says: the yaw that rigs have there, counter-clockwise from ahead, and how far from it they may look,
# degrees. A camera of nuScenes at the back left looks to 110 degrees, one of Argoverse 2 to 153; the left one of
# KITTI's pair looks straight ahead.
DIRECTIONS = {
    frozenset({'ahead'}): (0.0, 60.0),
    frozenset({'ahead', 'left'}): (50.0, 60.0),
    frozenset({'left'}): (90.0, 100.0),
    frozenset({'behind', 'left'}): (130.0, 55.0),
    frozenset({'behind'}): (180.0, 60.0),
    frozenset({'behind', 'right'}): (-130.0, 55.0),
    frozenset({'right'}): (-90.0, 100.0),
    frozenset({'ahead', 'right'}): (-50.0, 60.0),
}


@dataclass(frozen=True)
class NamedDirection:
    """Where a camera looks by its name.

    Attributes:
        yaw: usual direction, degrees counter-clockwise from straight ahead.
        tolerance: degrees by which cameras of that name differ from it.
    """

    yaw: float
    tolerance: float

    def deviation(self, yaw: float) -> float:
        """Return by how many degrees, from 0 to 180, a direction differs from the usual one."""
        return angle_between(yaw, self.yaw)


def angle_between(first: float, second: float) -> float:
    """Return the degrees, from 0 to 180, between two directions in degrees."""
    return float(abs((first - second + 180) % 360 - 180))


def direction_of(name: str) -> NamedDirection | None:
    """Read the direction from a camera's name, in any spelling; None where it says none or contradicts itself.

    A pair with 'stereo' in its names has left and right cameras that look the same way, so only front and back count.
    """
    said = {side for side, words in WORDS.items() if any(word in name.lower() for word in words)}
    if not said:
        tokens = re.split(r'[^a-z]+', name.lower())
        said = set().union(*(ABBREVIATIONS.get(token, set()) for token in tokens))
    if is_stereo(name):
        said -= {'left', 'right'}
    entry = DIRECTIONS.get(frozenset(said))
    return NamedDirection(*entry) if entry else None


def is_stereo(name: str) -> bool:
    """Tell whether a name says that its camera belongs to a stereo pair."""
    return STEREO in name.lower()


def describe_yaw(yaw: float) -> str:
    """Describe a direction in degrees, counter-clockwise from straight ahead, in words."""
    names = ('ahead', 'ahead and left', 'left', 'back and left', 'back', 'back and right', 'right', 'ahead and right')
    return f'{names[int(np.round(yaw / 45)) % 8]} (yaw {(yaw + 180) % 360 - 180:.0f} degrees)'
