"""The ten detection classes as they occur in the synthetic world: nuScenes categories, sizes and attributes."""

from __future__ import annotations

import dataclasses

import numpy as np

MOVING_SPEED = 0.3  # m/s above which an object has the attribute of one that moves
POSITION_DECIMALS = 3  # nuScenes states positions and sizes in millimetres


@dataclasses.dataclass(frozen=True)
class ObjectKind:
    """One detection class.

    Attributes:
        category: nuScenes category of its objects.
        size: mean (length, width, height) in metres, close to the class means of nuScenes.
        spread: relative standard deviation of the size.
        group: 'vehicle', 'cycle', 'pedestrian' or 'static', which decides what attributes its objects can have.
    """

    category: str
    size: tuple[float, float, float]
    spread: float
    group: str


KINDS = {
    'car': ObjectKind('vehicle.car', (4.62, 1.95, 1.73), 0.06, 'vehicle'),
    'truck': ObjectKind('vehicle.truck', (6.93, 2.51, 2.84), 0.08, 'vehicle'),
    'trailer': ObjectKind('vehicle.trailer', (10.9, 2.78, 3.80), 0.07, 'vehicle'),
    'bus': ObjectKind('vehicle.bus.rigid', (11.0, 2.85, 3.47), 0.05, 'vehicle'),
    'construction_vehicle': ObjectKind('vehicle.construction', (6.37, 2.72, 3.19), 0.08, 'vehicle'),
    'bicycle': ObjectKind('vehicle.bicycle', (1.70, 0.60, 1.12), 0.04, 'cycle'),
    'motorcycle': ObjectKind('vehicle.motorcycle', (2.11, 0.77, 1.25), 0.05, 'cycle'),
    'pedestrian': ObjectKind('human.pedestrian.adult', (0.70, 0.66, 1.77), 0.06, 'pedestrian'),
    'traffic_cone': ObjectKind('movable_object.trafficcone', (0.42, 0.42, 1.05), 0.06, 'static'),
    'barrier': ObjectKind('movable_object.barrier', (0.52, 2.50, 1.00), 0.04, 'static'),
}
RIDER_HEIGHT = {'bicycle': 1.68, 'motorcycle': 1.62}  # metres from the ground to the rider's head
CHILD_CATEGORY, CHILD_SCALE = 'human.pedestrian.child', 0.74


def sample_size(name: str, rng: np.random.Generator, rider: bool = False) -> tuple[float, float, float]:
    """Draw (length, width, height) in metres of one object, on the millimetre grid that nuScenes uses."""
    kind = KINDS[name]
    factors = 1 + kind.spread * np.clip(rng.standard_normal(3), -1.8, 1.8)
    length, width, height = np.array(kind.size) * factors
    if rider:
        height = RIDER_HEIGHT[name] * factors[2]
    length, width, height = np.round((length, width, height), POSITION_DECIMALS).tolist()
    return length, width, height


def attribute(name: str, speed: float, parked: bool, rider: bool) -> str:
    """Return the nuScenes attribute of an object with a speed in m/s, or '' for classes that have none."""
    group = KINDS[name].group
    if group == 'vehicle':
        if speed > MOVING_SPEED:
            return 'vehicle.moving'
        return 'vehicle.parked' if parked else 'vehicle.stopped'
    if group == 'cycle':
        return 'cycle.with_rider' if rider else 'cycle.without_rider'
    if group == 'pedestrian':
        return 'pedestrian.moving' if speed > MOVING_SPEED else 'pedestrian.standing'
    return ''


def radar_points(name: str, lidar_points: int) -> int:
    """Return a plausible number of radar points: metal that the lidar sees well gets some, anything else none."""
    per_lidar_point = {'vehicle': 0.02, 'cycle': 0.02}.get(KINDS[name].group, 0.0)
    return round(min(per_lidar_point * lidar_points, 12))
