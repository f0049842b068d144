"""One scene: its street, its light, where everybody is at any time, and what of it gets annotated."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from numpy.typing import ArrayLike

from bevformer_plugin.synthetic import objects
from bevformer_plugin.synthetic.ground import RESOLUTION
from bevformer_plugin.synthetic.motion import Actor, Track, sample_profile
from bevformer_plugin.synthetic.placement import populate
from bevformer_plugin.synthetic.rig import CAMERA_MOUNTS, Sensor, sample_rig
from bevformer_plugin.synthetic.road import Road, sample_road

KEYFRAME_PERIOD = 500_000  # microseconds
ANNOTATION_RANGE = 60.0  # metres from the ego vehicle up to which objects are annotated
MAP_MARGIN = 80.0  # metres of the map around all places of the ego vehicle
# Shape of the road, and whether the ego vehicle stops.
STORIES = (('curve', False), ('turn', False), ('straight', True), ('curve', True), ('turn', True), ('straight', False))


@dataclasses.dataclass(frozen=True)
class Light:
    """Light of a scene.

    Attributes:
        sun: (3,) unit vector towards the sun.
        ambient, direct: brightness of a face turned away from the sun, and what facing it adds.
        shadow: how much a shadow darkens the ground, 0 to 1.
        tint: (3,) BGR gains of the cameras.
        sky_bottom, sky_top: (3,) BGR colours at the horizon and far above it, 0 to 255.
    """

    sun: np.ndarray
    ambient: float
    direct: float
    shadow: float
    tint: np.ndarray
    sky_bottom: np.ndarray
    sky_top: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scenario:
    """Everything about a scene that does not depend on the image size.

    Attributes:
        name: scene name of the devkit's splits.
        story: what the scene shows, in words.
        start: timestamp of the first keyframe's lidar in microseconds; scene times are seconds after it.
        keyframes: (frames,) int64 timestamps of the lidar in microseconds.
        road: the street.
        ego: track of the ego vehicle's origin.
        actors: everything else that moves or stands on or beside the street.
        light: the light of the scene.
        rig: calibrated sensors of the ego vehicle by channel.
        map_size: (width, height) in metres; the map's lower left corner is the global origin.
    """

    name: str
    story: str
    start: int
    keyframes: np.ndarray
    road: Road
    ego: Track
    actors: list[Actor]
    light: Light
    rig: dict[str, Sensor]
    map_size: tuple[float, float]

    def seconds(self, timestamps: ArrayLike) -> np.ndarray:
        """Return the scene time of timestamps in microseconds."""
        return (np.asarray(timestamps) - self.start) * 1e-6

    def ego_poses(self, timestamps: ArrayLike) -> np.ndarray:
        """Return the poses (n, 3) of x, y and yaw of the ego vehicle at timestamps (n,) in microseconds."""
        return self.ego.poses(self.road, self.seconds(timestamps))

    def actor_poses(self, timestamp: int) -> np.ndarray:
        """Return the poses (actors, 3) of x, y and yaw of all actors at one timestamp in microseconds."""
        seconds = self.seconds(timestamp)
        moving, tracks = np.array(list(self._tracks), dtype=int), self._tracks.values()
        arcs = np.array([track.arcs(seconds) for track in tracks])
        poses = self._fixed_poses.copy()
        poses[moving] = self.road.poses(arcs, np.array([track.lateral for track in tracks]))
        poses[moving, 2] += np.array([0.0 if track.direction > 0 else np.pi for track in tracks])
        return poses

    @functools.cached_property
    def _tracks(self) -> dict[int, Track]:
        """The tracks of the actors that move, by the actors' indices."""
        return {index: actor.motion for index, actor in enumerate(self.actors) if isinstance(actor.motion, Track)}

    @functools.cached_property
    def _fixed_poses(self) -> np.ndarray:
        """The poses (actors, 3) of the actors that stand still, and zeros for those that move."""
        poses = [(0.0, 0.0, 0.0) if isinstance(actor.motion, Track) else actor.motion for actor in self.actors]
        return np.array(poses).reshape(-1, 3)

    def annotated(self) -> dict[int, range]:
        """Find the actors that get annotated.

        Returns:
            By the actor's index the keyframes from the first to the last in which it is near the ego vehicle.
        """
        ego = self.ego_poses(self.keyframes)[:, :2]
        spans: dict[int, range] = {}
        for index, actor in enumerate(self.actors):
            if actor.name in objects.KINDS:
                places = actor.poses(self.road, self.seconds(self.keyframes))[:, :2]
                near = np.flatnonzero(np.linalg.norm(places - ego, axis=1) < ANNOTATION_RANGE)
                if len(near):
                    spans[index] = range(int(near[0]), int(near[-1]) + 1)
        return spans


def sample_light(rng: np.random.Generator) -> Light:
    """Draw sunny, hazy or overcast light."""
    azimuth, elevation = rng.uniform(-np.pi, np.pi), np.deg2rad(rng.uniform(30, 65))
    sun = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    clear = rng.uniform(0.25, 1.0)
    warmth = rng.normal(0, 0.03)
    gain = rng.uniform(0.88, 1.10)
    sky_top = clear * np.array([225, 160, 95]) + (1 - clear) * np.array([205, 198, 190])
    sky_bottom = clear * np.array([235, 222, 205]) + (1 - clear) * np.array([214, 212, 210])
    return Light(
        sun,
        ambient=0.78 - 0.2 * clear,
        direct=0.2 + 0.32 * clear,
        shadow=0.22 + 0.3 * clear,
        tint=gain * np.array([1 - warmth, 1.0, 1 + warmth]),
        sky_bottom=sky_bottom,
        sky_top=sky_top,
    )


def build_scenario(name: str, index: int, frames: int, seed: int, image_size: tuple[int, int]) -> Scenario:
    """Draw a scene; the same arguments give the same scene.

    Args:
        name: scene name.
        index: place of the scene in the world, which decides its story and its time.
        frames: keyframes at 2 Hz.
        seed: of the world.
        image_size: (width, height), which only scales the intrinsics of the rig.
    """
    rng = np.random.default_rng([seed, index])
    start = 1_540_000_000_000_000 + index * 60_000_000 + int(rng.integers(1_000_000))
    jitter = rng.integers(-15_000, 15_001, frames)
    jitter[0] = 0
    keyframes = start + KEYFRAME_PERIOD * np.arange(frames, dtype=np.int64) + jitter
    duration = (frames - 1) * KEYFRAME_PERIOD * 1e-6 + 0.1
    shape, stops = STORIES[(index + seed) % len(STORIES)]
    profile = sample_profile(duration, rng.uniform(5.0, 10.5), stops, rng)
    road = sample_road(shape, float(profile.distance(duration)), rng)
    lane = int(rng.integers(road.section.lanes))
    ego = Track(profile, 0.0, -(lane + 0.5) * road.section.lane_edge / road.section.lanes)
    map_size = _centre_on_map(road, ego, duration)
    actors = populate(road, ego, duration, rng)
    rig = sample_rig(image_size, rng)
    story = f'{shape} street, {road.section.lanes} lane(s) each way, ego vehicle {"stops" if stops else "drives on"}'
    return Scenario(name, story, start, keyframes, road, ego, actors, sample_light(rng), rig, map_size)


def _centre_on_map(road: Road, ego: Track, duration: float) -> tuple[float, float]:
    """Move the road so that all places near the ego vehicle have positive coordinates.

    Returns:
        Width and height of the map in metres.
    """
    path = ego.poses(road, np.linspace(-0.5, duration + 0.5, 200))[:, :2]
    low, high = path.min(axis=0) - MAP_MARGIN, path.max(axis=0) + MAP_MARGIN
    road.move(-np.floor(low))
    size = np.ceil((high - np.floor(low)) / (16 * RESOLUTION)) * 16 * RESOLUTION
    return float(size[0]), float(size[1])


def camera_timestamps(keyframe: int) -> dict[str, int]:
    """Return when each camera fires, in microseconds, for a keyframe at the lidar's timestamp."""
    return {channel: int(keyframe) + mount.delay for channel, mount in CAMERA_MOUNTS.items()}
