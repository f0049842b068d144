"""Who is on the street: traffic in the lanes, people on the sidewalks, parked things, work sites, and scenery."""

from __future__ import annotations

import numpy as np

from bevformer_plugin.synthetic import objects
from bevformer_plugin.synthetic.motion import Actor, SpeedProfile, Track, constant_profile, sample_profile
from bevformer_plugin.synthetic.road import BIKE_LANE, PARKING, SIDEWALK, Road

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
EGO_CENTRE = 1.4


class _Deck:
    """Deals names in random order, all of them before any repeats, so that the classes stay balanced."""

    def __init__(self, cards, rng):
        self.cards, self.rng, self.left = cards, rng, []

    def deal(self):
        if not self.left:
            self.left = [self.cards[k] for k in self.rng.permutation(len(self.cards))]
        return self.left.pop()


class Population:
    """Collects the actors of one scene.

    Args:
        road: the street.
        duration: seconds.
        span: (first, last) arc length in metres to fill with things that stand still.
        rng: source of every choice.
    """

    def __init__(self, road: Road, duration, span, rng: np.random.Generator):
        self.road, self.duration, self.span, self.rng = road, duration, span, rng
        self.actors: list[Actor] = []

    def add(self, name, motion, *, size=None, parked=False, rider=False, walking=False):
        """Append an actor with a random size and appearance."""
        if size is None:
            size = objects.sample_size(name, self.rng, rider)
        category = objects.KINDS[name].category if name in objects.KINDS else ''
        if name == 'pedestrian':
            choice = self.rng.random()
            if choice < 0.15:
                category, scale = objects.CHILD
                size = tuple(round(scale * value, 3) for value in size)
            elif choice < 0.25:
                category = 'human.pedestrian.construction_worker'
        look = int(self.rng.integers(2**31))
        self.actors.append(Actor(name, category, size, motion, look, parked, rider, walking))

    def place(self, name, arc, lateral, yaw=0.0, **details):
        """Append an actor that stands at a place of the street, turned by ``yaw`` against its direction."""
        x, y, heading = self.road.poses(arc, lateral)
        self.add(name, (float(x), float(y), float(heading + yaw)), **details)

    def fill_lane(self, lateral, direction, profile: SpeedProfile, reach, deck, gap=(9.0, 32.0), ego=False):
        """Fill a lane with vehicles that share a profile, each some time and distance ahead of the one behind.

        Args:
            reach: (rear, front) metres from arc 0 to fill, seen in driving direction at time 0.
            gap: shortest and longest free distance between two vehicles in metres.
            ego: leave room around the ego vehicle, which drives this lane from arc 0.
        """
        sides = ((1, reach[1]), (-1, -reach[0])) if ego else ((1, reach[1] - reach[0]),)
        for sign, length in sides:
            edge, shift = (EGO_SIZE[0] / 2 + EGO_CENTRE * sign if ego else 0.0), 0.0
            base = 0.0 if ego else reach[0]
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
    def _convoy(card, sign):
        names = ('truck', 'trailer') if card == 'rig' else (card,)
        return names if sign < 0 else names[::-1]

    def fill_side(self, side):
        """Park vehicles, set up work sites and people along one side of the street (-1 right, 1 left)."""
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

    def _work_site(self, arc, side):
        """A construction vehicle between barriers and cones on the parking strip; returns its length in metres."""
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

    def _fill_sidewalk(self, side):
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

    def _fill_yard(self, side):
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

    def wait_in_side_streets(self):
        """Vehicles that wait in the side streets to enter the main street."""
        for street in self.road.side_streets:
            for side in (-1, 1):
                if self.rng.random() < 0.4:
                    name = ('car', 'truck', 'motorcycle', 'car')[self.rng.integers(4)]
                    rider = name in objects.RIDER_HEIGHT
                    size = objects.sample_size(name, self.rng, rider)
                    lateral = side * (self.road.section.sidewalk_edge + 0.5 + size[0] / 2)
                    self.place(name, street + side * 1.9, lateral, -side * np.pi / 2, size=size, rider=rider)

    def add_scenery(self):
        """Trees at the back of the yards and buildings behind them."""
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


def populate(road: Road, ego: Track, duration, rng: np.random.Generator) -> list[Actor]:
    """All actors of a scene; no two of them, and none and the ego vehicle, ever touch.

    Args:
        ego: track of the ego vehicle, in the rightmost lane or the one beside it.
        duration: seconds.
    """
    times = np.arange(0.0, duration + 0.25, 0.25)
    driven = ego.profile.distance(times)
    around = 75.0
    population = Population(road, duration, (driven[0] - around, driven[-1] + around), rng)
    deck = _Deck(LANE_DECK, rng)
    width = road.section.lane_edge / road.section.lanes
    for lane in range(road.section.lanes):
        for direction in (1, -1):
            lateral = -direction * (lane + 0.5) * width
            if lateral == ego.lateral:
                population.fill_lane(lateral, 1, ego.profile, (-around, around), deck, ego=True)
                continue
            stops = direction > 0 and ego.profile.speed(times).min() < 0.1
            profile = sample_profile(duration, rng.uniform(3.5, 11), stops, rng)
            reach = _reach(direction * driven, profile.distance(times), around)
            population.fill_lane(lateral, direction, profile, reach, deck)
    riders = _Deck(('bicycle', 'bicycle', 'motorcycle', 'bicycle'), rng)
    for direction in (1, -1):
        profile = sample_profile(duration, rng.uniform(2.5, 5.5), False, rng)
        reach = _reach(direction * driven, profile.distance(times), around)
        lateral = -direction * (road.section.lane_edge + 0.48 * BIKE_LANE)
        population.fill_lane(lateral, direction, profile, reach, riders, gap=(25.0, 85.0))
    for side in (-1, 1):
        population.fill_side(side)
    population.wait_in_side_streets()
    population.add_scenery()
    return _without_collisions(population.actors, road, ego, times)


def _reach(driven, displacement, around):
    """Which stretch of a lane at time 0 comes within ``around`` metres of the ego vehicle at some time."""
    relative = driven - displacement
    return relative.min() - around, relative.max() + around


def _without_collisions(actors, road, ego, times):
    """Drop every actor that would touch the ego vehicle or an actor earlier in the list at one of the times."""
    poses = [ego.poses(road, times)]
    poses[0][:, :2] += EGO_CENTRE * np.stack([np.cos(poses[0][:, 2]), np.sin(poses[0][:, 2])], axis=1)
    poses = np.stack(poses + [actor.poses(road, times) for actor in actors], axis=1)  # times x actors x 3
    half = 0.5 * np.array([EGO_SIZE[:2], *[actor.size[:2] for actor in actors]]) + 0.12
    radius = np.linalg.norm(half, axis=1)
    distance = np.linalg.norm(poses[:, :, None, :2] - poses[:, None, :, :2], axis=-1)
    frame, first, second = np.nonzero(np.triu(distance < radius[:, None] + radius[None], k=1))
    touching = rectangles_touch(poses[frame, first], half[first], poses[frame, second], half[second])
    pairs = np.unique(np.stack([first[touching], second[touching]], axis=1), axis=0)
    dropped = set()
    for one, other in pairs.tolist():
        if one not in dropped:
            dropped.add(other)
    return [actor for k, actor in enumerate(actors, start=1) if k not in dropped]


def rectangles_touch(poses_a, half_a, poses_b, half_b) -> np.ndarray:
    """Separating-axis test of n pairs of rectangles: poses (n, 3) x, y, yaw and half sizes (n, 2) -> (n,) bool."""
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
