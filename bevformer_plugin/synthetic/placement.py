"""Who is on the street: traffic in the lanes, people on the sidewalks, parked things, work sites, and scenery."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bevformer_plugin.synthetic import objects
from bevformer_plugin.synthetic.motion import Actor, SpeedProfile, Track, constant_profile, sample_profile
from bevformer_plugin.synthetic.road import BIKE_LANE, PARKING, SIDEWALK, Road

Size = tuple[float, float, float]  # length, width, height in metres
# What lanes, parking strips and yards are filled with: a class of objects, or 'rig' (a truck with its trailer),
# 'work' (a work site), 'cones' or 'barriers' (a row of them).
LANE_DECK = ('car', 'rig', 'bus', 'motorcycle', 'car', 'rig', 'motorcycle', 'car', 'truck', 'motorcycle')
PARKING_DECK = ('car', 'motorcycle', 'bus', 'bicycle', 'truck', 'work', 'trailer', 'car', 'work', 'bicycle', 'bus')
YARD_DECK = (
    'construction_vehicle',
    'trailer',
    'cones',
    'barriers',
    'bus',
    'construction_vehicle',
    'barriers',
    'trailer',
)
EGO_SIZE = (4.2, 1.8, 1.6)
EGO_CENTRE = 1.4  # metres from the ego vehicle's origin, under the rear axle, forward to its middle
NEIGHBOURHOOD = 75.0  # metres before and behind all places of the ego vehicle that are filled
CLEARANCE = 0.12  # metres around an actor that count as touching it


class _Deck:
    """Deals names in random order, all of them before any repeats, so that the classes stay balanced."""

    def __init__(self, cards: Sequence[str], rng: np.random.Generator) -> None:
        self.cards, self.rng = cards, rng
        self.undealt: list[str] = []

    def deal(self) -> str:
        if not self.undealt:
            self.undealt = [self.cards[int(k)] for k in self.rng.permutation(len(self.cards))]
        return self.undealt.pop()


class Population:
    """Collects the actors of one scene.

    Args:
        road: the street.
        duration: seconds.
        span: (first, last) arc length in metres to fill with things that stand still.
        rng: source of every choice.
    """

    def __init__(self, road: Road, duration: float, span: tuple[float, float], rng: np.random.Generator) -> None:
        self.road, self.duration, self.span, self.rng = road, duration, span, rng
        self.actors: list[Actor] = []

    def add(
        self,
        name: str,
        motion: Track | tuple[float, float, float],
        *,
        size: Size | None = None,
        parked: bool = False,
        rider: bool = False,
        walking: bool = False,
    ) -> None:
        """Append an actor with a random appearance and, unless it is given, a random size; see :class:`Actor`."""
        if size is None:
            size = objects.sample_size(name, self.rng, rider)
        category = objects.KINDS[name].category if name in objects.KINDS else ''
        if name == 'pedestrian':
            choice = self.rng.random()
            if choice < 0.15:
                category, scale = objects.CHILD_CATEGORY, objects.CHILD_SCALE
                length, width, height = size
                size = round(scale * length, 3), round(scale * width, 3), round(scale * height, 3)
            elif choice < 0.25:
                category = 'human.pedestrian.construction_worker'
        look = int(self.rng.integers(2**31))
        self.actors.append(Actor(name, category, size, motion, look, parked, rider, walking))

    def place(
        self,
        name: str,
        arc: float,
        lateral: float,
        yaw: float = 0.0,
        *,
        size: Size | None = None,
        parked: bool = False,
        rider: bool = False,
    ) -> None:
        """Append an actor that stands at a place of the street, turned by ``yaw`` against the street's direction."""
        x, y, heading = self.road.poses(arc, lateral)
        self.add(name, (float(x), float(y), float(heading + yaw)), size=size, parked=parked, rider=rider)

    def fill_lane(
        self,
        lateral: float,
        direction: int,
        profile: SpeedProfile,
        reach: tuple[float, float],
        deck: _Deck,
        gap: tuple[float, float] = (9.0, 32.0),
        holds_ego: bool = False,
    ) -> None:
        """Fill a lane with vehicles that share a profile, each some time and distance ahead of the one behind.

        Args:
            lateral: metres left of the centre line.
            direction: 1 along the street, -1 against it.
            profile: speed of the vehicles.
            reach: (rear, front) metres from arc 0 to fill, in driving direction at time 0.
            deck: deals the names of the vehicles.
            gap: shortest and longest free distance between two vehicles in metres.
            holds_ego: leave room for the ego vehicle, which drives this lane from arc 0.
        """
        sides = ((1, reach[1]), (-1, -reach[0])) if holds_ego else ((1, reach[1] - reach[0]),)
        for sign, length in sides:
            edge, shift = (EGO_SIZE[0] / 2 + EGO_CENTRE * sign if holds_ego else 0.0), 0.0
            base = 0.0 if holds_ego else reach[0]
            while edge + profile.speed(0.0) * shift < length:
                shift += self.rng.uniform(0.2, 1.0)
                edge += self.rng.uniform(*gap)
                for name in self._convoy(deck.deal(), sign):
                    rider = name in objects.RIDER_HEIGHT
                    size = objects.sample_size(name, self.rng, rider)
                    track = Track(
                        profile, direction * (base + sign * (edge + size[0] / 2)), lateral, direction, sign * shift
                    )
                    self.add(name, track, size=size, rider=rider)
                    edge += size[0] + 0.9

    @staticmethod
    def _convoy(card: str, sign: int) -> tuple[str, ...]:
        """Return the vehicles of a card in the order of placing them, forward (sign 1) or backward (-1)."""
        names = ('truck', 'trailer') if card == 'rig' else (card,)
        return names if sign < 0 else names[::-1]

    def fill_side(self, side: int) -> None:
        """Fill parking strip, sidewalk and yards along one side of the street (-1 right, 1 left)."""
        section, rng = self.road.section, self.rng
        strip = side * (section.bike_edge + PARKING / 2)
        yaw = 0.0 if side < 0 else np.pi
        deck = _Deck(PARKING_DECK, rng)
        arc = self.span[0]
        while arc < self.span[1]:
            card = deck.deal()
            if self.road.near_side_street(arc + 6, 9.0):
                arc += 6.0
            elif card == 'work':
                arc += self._work_site(arc, side)
            else:
                size = objects.sample_size(card, rng)
                middle = arc + size[0] / 2
                if card in objects.RIDER_HEIGHT:
                    self.place(card, middle, strip + rng.uniform(-0.5, 0.5), yaw + rng.normal(0, 0.5), size=size)
                else:
                    self.place(card, middle, strip, yaw + rng.normal(0, 0.03), size=size, parked=True)
                arc += size[0]
            arc += rng.uniform(9.0, 30.0)
        self._fill_sidewalk(side)
        self._fill_yard(side)

    def _work_site(self, arc: float, side: int) -> float:
        """Set up a construction vehicle between barriers and cones on the parking strip.

        Returns:
            Metres of the strip that it takes.
        """
        section, rng = self.road.section, self.rng
        strip = side * (section.bike_edge + PARKING / 2)
        size = objects.sample_size('construction_vehicle', rng)
        ends = (arc + 0.5, arc + 5.6 + size[0])
        self.place(
            'construction_vehicle', arc + 2.6 + size[0] / 2, strip, rng.choice([0.0, np.pi]), size=size, parked=True
        )
        for end in ends:
            if rng.random() < 0.6:
                self.place('barrier', end, strip, rng.choice([0.0, np.pi]) + rng.normal(0, 0.06))
        for k in range(int(rng.integers(2, 5))):
            self.place('traffic_cone', ends[0] - 1.4 * (k + 1), side * (section.bike_edge + 0.3 + 0.8 * k))
        if rng.random() < 0.4:
            self.place('pedestrian', ends[1] - 1.5, strip + rng.uniform(-0.6, 0.6), rng.uniform(-np.pi, np.pi))
        return size[0] + 7.0

    def _fill_sidewalk(self, side: int) -> None:
        """Let people walk in both directions, and place people and bicycles that stand still."""
        section, rng, (first, last) = self.road.section, self.rng, self.span
        inner = section.kerb
        for lateral, direction in ((inner + 0.55, 1), (inner + 1.35, -1)):
            arc = first
            while arc < last:
                arc += rng.uniform(30, 150)
                profile = constant_profile(self.duration, rng.uniform(0.8, 1.9))
                self.add('pedestrian', Track(profile, arc, side * lateral, direction), walking=True)
        arc = first
        while arc < last:
            arc += rng.uniform(18, 70)
            lateral = side * (inner + SIDEWALK - rng.uniform(0.45, 0.75))
            if rng.random() < 0.62:
                self.place('pedestrian', arc, lateral, rng.uniform(-np.pi, np.pi))
            else:
                self.place('bicycle', arc, lateral, rng.choice([0.0, np.pi]) + rng.normal(0, 0.2))

    def _fill_yard(self, side: int) -> None:
        """Place vehicles, cones and barriers beside the sidewalk."""
        section, rng = self.road.section, self.rng
        deck = _Deck(YARD_DECK, rng)
        arc = self.span[0] + rng.uniform(0, 12)
        while arc < self.span[1]:
            card = deck.deal()
            if self.road.near_side_street(arc, 10.0):
                arc += 8.0
                continue
            middle = side * (section.sidewalk_edge + 3.6)
            front = side * (section.sidewalk_edge + 0.7)
            if card == 'cones':
                for k in range(int(rng.integers(2, 5))):
                    self.place('traffic_cone', arc + 1.7 * k, front + side * rng.uniform(0, 0.5))
            elif card == 'barriers':
                for k in range(int(rng.integers(2, 5))):
                    self.place('barrier', arc + 3.0 * k, front, side * np.pi / 2 + rng.normal(0, 0.05))
            else:
                angle = rng.choice([0.0, np.pi]) + rng.normal(0, 0.25)
                self.place(card, arc + 4, middle, angle, parked=True)
                if card == 'construction_vehicle':
                    self.place('barrier', arc + rng.uniform(1, 5), front, side * np.pi / 2 + rng.normal(0, 0.05))
            arc += rng.uniform(22, 50)

    def wait_in_side_streets(self) -> None:
        """Place vehicles that wait in the side streets to enter the main street."""
        for street in self.road.side_streets:
            for side in (-1, 1):
                if self.rng.random() < 0.4:
                    name = ('car', 'truck', 'motorcycle', 'car')[self.rng.integers(4)]
                    rider = name in objects.RIDER_HEIGHT
                    size = objects.sample_size(name, self.rng, rider)
                    lateral = side * (self.road.section.sidewalk_edge + 0.5 + size[0] / 2)
                    self.place(name, street + side * 1.9, lateral, -side * np.pi / 2, size=size, rider=rider)

    def add_scenery(self) -> None:
        """Place trees at the back of the yards and buildings behind them."""
        section, rng = self.road.section, self.rng
        for side in (-1, 1):
            arc = self.span[0] - 40
            while arc < self.span[1] + 40:
                length, depth = rng.uniform(9, 24), rng.uniform(8, 14)
                middle = arc + length / 2
                if rng.random() < 0.72 and not self.road.near_side_street(middle, length / 2 + 2):
                    lateral = side * (section.yard_edge + rng.uniform(1, 8) + depth / 2)
                    self.place('building', middle, lateral, size=(length, depth, rng.uniform(5, 18)))
                arc += length + rng.uniform(1, 14)
            arc = self.span[0] - 20
            while arc < self.span[1] + 20:
                arc += rng.uniform(9, 30)
                crown = rng.uniform(1.6, 2.6)
                if not self.road.near_side_street(arc, 3.0):
                    self.place('tree', arc, side * (section.yard_edge - 0.4), size=(crown, crown, rng.uniform(4, 7)))


def populate(road: Road, ego: Track, duration: float, rng: np.random.Generator) -> list[Actor]:
    """Make all actors of a scene, none of which ever touches another one or the ego vehicle.

    Args:
        road: the street.
        ego: track of the ego vehicle, in the rightmost lane or the one beside it.
        duration: seconds.
        rng: source of every choice.
    """
    times = np.arange(0.0, duration + 0.25, 0.25)
    driven = ego.profile.distance(times)
    population = Population(road, duration, (driven[0] - NEIGHBOURHOOD, driven[-1] + NEIGHBOURHOOD), rng)
    deck = _Deck(LANE_DECK, rng)
    width = road.section.lane_edge / road.section.lanes
    for lane in range(road.section.lanes):
        for direction in (1, -1):
            lateral = -direction * (lane + 0.5) * width
            if lateral == ego.lateral:
                reach = (-NEIGHBOURHOOD, NEIGHBOURHOOD)
                population.fill_lane(lateral, 1, ego.profile, reach, deck, holds_ego=True)
                continue
            stops = direction > 0 and bool(ego.profile.speed(times).min() < 0.1)
            profile = sample_profile(duration, rng.uniform(3.5, 11), stops, rng)
            reach = _reach(direction * driven, profile.distance(times))
            population.fill_lane(lateral, direction, profile, reach, deck)
    riders = _Deck(('bicycle', 'bicycle', 'motorcycle', 'bicycle'), rng)
    for direction in (1, -1):
        profile = sample_profile(duration, rng.uniform(2.5, 5.5), False, rng)
        reach = _reach(direction * driven, profile.distance(times))
        lateral = -direction * (road.section.lane_edge + 0.48 * BIKE_LANE)
        population.fill_lane(lateral, direction, profile, reach, riders, gap=(25.0, 85.0))
    for side in (-1, 1):
        population.fill_side(side)
    population.wait_in_side_streets()
    population.add_scenery()
    return _without_collisions(population.actors, road, ego, times)


def _reach(driven: np.ndarray, displacement: np.ndarray) -> tuple[float, float]:
    """Find the stretch of a lane whose vehicles come near the ego vehicle at some time.

    Args:
        driven: (times,) metres of the ego vehicle in the lane's direction since time 0.
        displacement: (times,) metres of the lane's vehicles in that direction since time 0.

    Returns:
        Its rear and front end in metres from arc 0, in driving direction at time 0.
    """
    relative = driven - displacement
    return relative.min() - NEIGHBOURHOOD, relative.max() + NEIGHBOURHOOD


def _without_collisions(actors: list[Actor], road: Road, ego: Track, times: np.ndarray) -> list[Actor]:
    """Drop every actor that would touch the ego vehicle or an actor earlier in the list at one of the times."""
    ego_poses = ego.poses(road, times)
    ego_poses[:, :2] += EGO_CENTRE * np.stack([np.cos(ego_poses[:, 2]), np.sin(ego_poses[:, 2])], axis=1)
    poses = np.stack([ego_poses, *(actor.poses(road, times) for actor in actors)], axis=1)  # times x actors x 3
    half = 0.5 * np.array([EGO_SIZE[:2], *[actor.size[:2] for actor in actors]]) + CLEARANCE
    radius = np.linalg.norm(half, axis=1)
    distance = np.linalg.norm(poses[:, :, None, :2] - poses[:, None, :, :2], axis=-1)
    frame, first, second = np.nonzero(np.triu(distance < radius[:, None] + radius[None], k=1))
    touching = rectangles_touch(poses[frame, first], half[first], poses[frame, second], half[second])
    pairs = np.unique(np.stack([first[touching], second[touching]], axis=1), axis=0)
    dropped: set[int] = set()
    for earlier, later in pairs.tolist():
        if earlier not in dropped:
            dropped.add(later)
    return [actor for k, actor in enumerate(actors, start=1) if k not in dropped]


def rectangles_touch(poses_a: np.ndarray, half_a: np.ndarray, poses_b: np.ndarray, half_b: np.ndarray) -> np.ndarray:
    """Test by separating axes which of n pairs of rectangles overlap.

    Args:
        poses_a, poses_b: (n, 3) x, y, yaw of the rectangles of each pair.
        half_a, half_b: (n, 2) half of their lengths and widths.

    Returns:
        (n,) bool.
    """
    between = poses_b[:, :2] - poses_a[:, :2]
    touching = np.ones(len(between), dtype=bool)
    for yaw in (poses_a[:, 2], poses_b[:, 2]):
        for turn in (0.0, np.pi / 2):
            axis = np.stack([np.cos(yaw + turn), np.sin(yaw + turn)], axis=1)
            reach = np.zeros(len(between))
            for poses, half in ((poses_a, half_a), (poses_b, half_b)):
                across = poses[:, 2] - yaw - turn
                reach += half[:, 0] * np.abs(np.cos(across)) + half[:, 1] * np.abs(np.sin(across))
            touching &= np.abs((between * axis).sum(axis=1)) < reach
    return touching
