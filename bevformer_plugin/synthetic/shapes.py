"""What the ten classes, buildings and trees look like: solids that touch all six sides of the object's box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bevformer_plugin.errors import InputError
from bevformer_plugin.synthetic.solids import Colour, Disc, Model, Solid

GLASS = (92, 74, 58)
DARK = (44, 42, 40)
HEADLIGHT = (215, 250, 255)
TAILLIGHT = (40, 30, 215)
WHITE = (240, 240, 240)
ORANGE = (20, 105, 240)
RED = (45, 40, 200)
SKIN = ((170, 195, 230), (120, 150, 200), (75, 105, 150))

CAR_PAINT = (
    (235, 235, 235),
    (190, 190, 188),
    (110, 108, 105),
    (48, 46, 46),
    (50, 40, 185),
    (165, 85, 35),
    (70, 110, 50),
    (120, 170, 205),
)
BUS_PAINT = ((40, 40, 190), (40, 190, 235), (180, 110, 30), (70, 150, 60))
BOX_PAINT = ((225, 228, 228), (200, 175, 120), (120, 175, 215), (130, 190, 140))
TRAILER_PAINT = ((205, 205, 205), (170, 120, 70), (150, 165, 175))
MACHINE_PAINT = ((30, 185, 245), (20, 160, 235), (45, 200, 235))
CYCLE_PAINT = ((60, 50, 200), (190, 110, 30), (60, 160, 60), (40, 180, 230), (200, 200, 205))
CLOTHES = (
    (180, 70, 50),
    (60, 60, 190),
    (70, 150, 70),
    (190, 170, 60),
    (150, 70, 150),
    (90, 190, 220),
    (225, 225, 225),
    (70, 65, 60),
)
TROUSERS = ((120, 75, 45), (60, 58, 56), (85, 110, 135))
WALLS = ((150, 165, 180), (120, 140, 170), (165, 170, 172), (130, 150, 140), (140, 130, 125))


def _pick(rng: np.random.Generator, palette: Sequence[Colour]) -> Colour:
    """Draw a colour of a palette and vary it a little."""
    base = np.array(palette[rng.integers(len(palette))], dtype=float)
    return _as_colour(np.clip(base + rng.normal(0, 8, 3), 20, 250))


def _as_colour(channels: np.ndarray) -> Colour:
    blue, green, red = channels.tolist()
    return blue, green, red


def _darker(colour: Colour, factor: float = 0.7) -> Colour:
    blue, green, red = colour
    return factor * blue, factor * green, factor * red


def _lighter(colour: Colour) -> Colour:
    return _as_colour(np.minimum(255.0, 1.35 * np.array(colour) + 25))


def build_model(
    name: str,
    size: tuple[float, float, float],
    rng: np.random.Generator,
    rider: bool = False,
    walking: bool = False,
) -> Model:
    """Build the model of one object.

    Args:
        name: one of the ten detection classes, 'building' or 'tree'.
        size: (length, width, height) of its box in metres.
        rng: source of its colour and variant.
        rider: whether someone rides the two-wheeler.
        walking: whether the pedestrian's legs are apart.

    Raises:
        InputError: there is no shape of that name.
    """
    length, width, height = size
    if name == 'pedestrian':
        return Model(_pedestrian(length, width, height, rng, walking))
    if name in TWO_WHEELERS:
        return Model(TWO_WHEELERS[name](length, width, height, rng, rider))
    if name in OTHER_SHAPES:
        return Model(OTHER_SHAPES[name](length, width, height, rng))
    known = sorted(['pedestrian', *TWO_WHEELERS, *OTHER_SHAPES])
    raise InputError(f'no shape for {name!r}; known: {known}')


def _car(length: float, width: float, height: float, rng: np.random.Generator) -> list[Solid]:
    paint = _pick(rng, CAR_PAINT)
    half, side, sill, belt = length / 2, width / 2, 0.2 * height, 0.58 * height
    radius = 0.19 * height
    under = Solid((-0.45 * length, -0.46 * width, 0.06), (0.45 * length, 0.46 * width, sill), DARK)
    body = Solid((-half, -side, sill), (half, side, belt), paint)
    body.decal('front', 0.03, 0.24, 0.45, 0.82, HEADLIGHT, False).decal(
        'front', 0.76, 0.97, 0.45, 0.82, HEADLIGHT, False
    )
    body.decal('front', 0.30, 0.70, 0.30, 0.75, DARK).decal('front', 0.0, 1.0, 0.0, 0.16, DARK)
    body.decal('rear', 0.02, 0.22, 0.45, 0.88, TAILLIGHT, False).decal(
        'rear', 0.78, 0.98, 0.45, 0.88, TAILLIGHT, False
    )
    body.decal('rear', 0.38, 0.62, 0.35, 0.60, WHITE).decal('rear', 0.0, 1.0, 0.0, 0.20, DARK)
    body.wheels(-0.31 * length, radius).wheels(0.31 * length, radius)
    hatchback = rng.random() < 0.5
    back, roof_back = (-0.49, -0.43) if hatchback else (-0.40, -0.26)
    cabin = Solid(
        (back * length, -0.48 * width, belt),
        (0.25 * length, 0.48 * width, height),
        paint,
        top=(roof_back * length, 0.07 * length, -0.40 * width, 0.40 * width),
    )
    cabin.paint(GLASS, 'front', 'rear', 'left', 'right').side_decal(0.46, 0.52, 0.0, 1.0, paint)
    cabin.side_decal(0.0, 1.0, 0.9, 1.0, paint).decal('rear', 0.0, 1.0, 0.0, 0.2, paint)
    return [under, body, cabin]


def _truck(length: float, width: float, height: float, rng: np.random.Generator) -> list[Solid]:
    paint, box_paint = _pick(rng, CAR_PAINT), _pick(rng, BOX_PAINT)
    half, side, floor = length / 2, width / 2, 0.26 * height
    cab_back = half - max(1.7, 0.27 * length)
    radius = 0.17 * height
    chassis = Solid((-0.48 * length, -0.45 * width, 0.12 * height), (0.48 * length, 0.45 * width, floor), DARK)
    cab = Solid(
        (cab_back, -0.49 * width, floor),
        (half, 0.49 * width, 0.84 * height),
        paint,
        top=(cab_back, half - 0.25, -0.46 * width, 0.46 * width),
    )
    cab.decal('front', 0.06, 0.94, 0.48, 0.90, GLASS).decal('front', 0.22, 0.78, 0.08, 0.38, DARK)
    cab.decal('front', 0.03, 0.20, 0.06, 0.26, HEADLIGHT, False).decal(
        'front', 0.80, 0.97, 0.06, 0.26, HEADLIGHT, False
    )
    cab.side_decal(0.35, 0.92, 0.50, 0.88, GLASS).wheels(0.5 * (cab_back + half) - 0.05, radius)
    box = Solid((-half, -side, floor), (cab_back - 0.12, side, height), box_paint)
    box.side_decal(0.0, 1.0, 0.0, 0.08, _darker(paint)).side_decal(0.25, 0.75, 0.45, 0.62, paint)
    box.decal('rear', 0.06, 0.49, 0.08, 0.95, _darker(box_paint, 0.85))
    box.decal('rear', 0.51, 0.94, 0.08, 0.95, _darker(box_paint, 0.85))
    box.decal('rear', 0.0, 0.16, -0.06, 0.08, TAILLIGHT, False).decal('rear', 0.84, 1.0, -0.06, 0.08, TAILLIGHT, False)
    box.wheels(-0.30 * length, radius)
    return [chassis, cab, box]


def _trailer(length: float, width: float, height: float, rng: np.random.Generator) -> list[Solid]:
    paint = _pick(rng, TRAILER_PAINT)
    half, side, floor = length / 2, width / 2, 0.28 * height
    radius = 0.125 * height
    bogie = Solid((-0.46 * length, -0.47 * width, 0.10), (-0.16 * length, 0.47 * width, floor), DARK)
    legs = Solid((0.24 * length, -0.35 * width, 0.0), (0.29 * length, 0.35 * width, floor), (95, 95, 95))
    box = Solid((-half, -side, floor), (half, side, height), paint)
    for k in range(7):
        box.side_decal(k / 7 + 0.06, k / 7 + 0.085, 0.06, 0.96, _darker(paint, 0.72))
    box.side_decal(0.0, 1.0, 0.0, 0.06, RED)
    for x in (-0.40, -0.31, -0.22):
        box.wheels(x * length, radius)
    for k in range(4):
        colour = (40, 200, 240) if k % 2 else RED
        box.decal('rear', 0.25 * k, 0.25 * (k + 1), 0.0, 0.2, colour)
    box.decal('rear', 0.48, 0.52, 0.2, 1.0, DARK).decal('front', 0.1, 0.9, 0.1, 0.9, _darker(paint, 0.6))
    return [bogie, legs, box]


def _bus(length: float, width: float, height: float, rng: np.random.Generator) -> list[Solid]:
    paint = _pick(rng, BUS_PAINT)
    half, side, floor, radius = length / 2, width / 2, 0.10 * height, 0.14 * height
    under = Solid((-0.48 * length, -0.46 * width, 0.04), (0.48 * length, 0.46 * width, floor), DARK)
    body = Solid((-half, -side, floor), (half, side, height), paint)
    body.side_decal(0.0, 1.0, 0.86, 1.0, WHITE).side_decal(0.03, 0.97, 0.42, 0.80, GLASS)
    for k in range(1, 7):
        body.side_decal(k / 7 - 0.008, k / 7 + 0.008, 0.42, 0.80, paint)
    body.decal('right', 0.86, 0.95, 0.02, 0.80, (120, 100, 80)).decal('right', 0.45, 0.55, 0.02, 0.80, (120, 100, 80))
    body.wheels(-0.28 * length, radius).wheels(0.33 * length, radius)
    body.decal('front', 0.04, 0.96, 0.32, 0.82, GLASS).decal('front', 0.2, 0.8, 0.86, 0.97, (40, 170, 255), False)
    body.decal('front', 0.03, 0.2, 0.05, 0.18, HEADLIGHT, False).decal(
        'front', 0.8, 0.97, 0.05, 0.18, HEADLIGHT, False
    )
    body.decal('rear', 0.15, 0.85, 0.55, 0.82, GLASS).decal('rear', 0.2, 0.8, 0.08, 0.38, DARK)
    body.decal('rear', 0.02, 0.14, 0.08, 0.45, TAILLIGHT, False).decal(
        'rear', 0.86, 0.98, 0.08, 0.45, TAILLIGHT, False
    )
    body.paint(WHITE, 'top')
    return [under, body]


def _construction_vehicle(length: float, width: float, height: float, rng: np.random.Generator) -> list[Solid]:
    paint = _pick(rng, MACHINE_PAINT)
    side, half = width / 2, length / 2
    if rng.random() < 0.6:
        return _excavator(length, width, height, paint)
    radius = 0.24 * height
    hull = Solid((-half, -0.42 * width, 0.2 * height), (0.0, 0.42 * width, 0.62 * height), paint)
    hull.decal('rear', 0.1, 0.9, 0.15, 0.75, DARK).decal('rear', 0.0, 0.1, 0.8, 1.0, TAILLIGHT, False)
    axle = Solid((0.0, -0.3 * width, 0.15 * height), (0.30 * length, 0.3 * width, 0.45 * height), _darker(paint, 0.8))
    cab = Solid(
        (-0.22 * length, -0.36 * width, 0.62 * height),
        (0.08 * length, 0.36 * width, height),
        GLASS,
        top=(-0.20 * length, 0.04 * length, -0.33 * width, 0.33 * width),
    ).paint(paint, 'top')
    cab.side_decal(0.42, 0.5, 0, 1, paint).decal('rear', 0, 1, 0, 0.3, paint)
    bucket = Solid(
        (0.30 * length, -side, 0.0),
        (half, side, 0.36 * height),
        (95, 95, 92),
        top=(0.32 * length, 0.42 * length, -side, side),
    )
    bucket.decal('front', 0, 1, 0, 0.14, (190, 190, 190))
    hull.wheels(-0.28 * length, radius)
    axle.wheels(0.14 * length, radius)
    return [hull, axle, cab, bucket]


def _excavator(length: float, width: float, height: float, paint: Colour) -> list[Solid]:
    side, half, deck = width / 2, length / 2, 0.26 * height
    tracks = Solid((-half, -side, 0.0), (0.14 * length, side, deck), DARK)
    for f in (0.12, 0.37, 0.63, 0.88):
        tracks.side_decal(f - 0.07, f + 0.07, 0.25, 0.7, (105, 105, 105))
    hull = Solid((-0.48 * length, -0.46 * width, deck), (-0.04 * length, 0.46 * width, 0.64 * height), paint)
    for k in range(4):
        hull.decal('rear', 0.25 * k, 0.25 * k + 0.13, 0.0, 0.3, DARK)
    hull.side_decal(0.1, 0.45, 0.3, 0.75, _darker(paint, 0.6))
    cab = Solid((-0.04 * length, 0.02, deck), (0.14 * length, 0.46 * width, 0.88 * height), GLASS).paint(paint, 'top')
    cab.decal('left', 0, 1, 0, 0.3, paint).decal('front', 0, 1, 0, 0.25, paint).decal('rear', 0, 1, 0, 0.4, paint)
    mast = Solid(
        (-0.04 * length, -0.32 * width, deck),
        (0.14 * length, -0.02, height),
        paint,
        bottom=(-0.04 * length, 0.10 * length, -0.32 * width, -0.02),
        top=(0.02 * length, 0.14 * length, -0.28 * width, -0.04),
    )
    arm = Solid(
        (0.14 * length, -0.28 * width, 0.70 * height),
        (half, -0.04, height),
        paint,
        top=(0.14 * length, 0.36 * length, -0.28 * width, -0.04),
    )
    stick = Solid((0.38 * length, -0.26 * width, 0.34 * height), (half, -0.06, 0.70 * height), _darker(paint, 0.85))
    bucket = Solid((0.28 * length, -0.40 * width, 0.0), (half, 0.08 * width, 0.34 * height), (85, 85, 82))
    bucket.decal('front', 0, 1, 0, 0.2, (180, 180, 180))
    return [tracks, hull, cab, mast, arm, stick, bucket]


def _rider(
    x_back: float, x_front: float, width: float, base: float, height: float, rng: np.random.Generator, head: Colour
) -> list[Solid]:
    """Build torso and head of a rider who sits at height ``base``; ``head`` is the colour of hair or helmet."""
    torso = Solid(
        (x_back, -0.36 * width, base),
        (x_front, 0.36 * width, height - 0.28),
        _pick(rng, CLOTHES),
        bottom=(x_back, x_front - 0.1, -0.3 * width, 0.3 * width),
        top=(x_back + 0.1, x_front, -0.36 * width, 0.36 * width),
    )
    middle = 0.5 * (x_back + x_front) + 0.05
    skull = Solid((middle - 0.13, -0.12, height - 0.28), (middle + 0.13, 0.12, height), head)
    skull.decal('front', 0.05, 0.95, 0.1, 0.75, SKIN[0])
    return [torso, skull]


def _motorcycle(
    length: float, width: float, height: float, rng: np.random.Generator, rider: bool
) -> list[Solid | Disc]:
    paint, half = _pick(rng, CYCLE_PAINT), length / 2
    radius, bar = 0.30, 0.22 * length
    wheels = [Disc(sign * (half - radius), radius, 0.16, DARK, (95, 95, 95)) for sign in (-1, 1)]
    gap = half - 2 * radius
    engine = Solid((-gap, -0.2, 0.16), (gap, 0.2, 2 * radius), (75, 75, 78)).side_decal(0.1, 0.9, 0.5, 1.0, paint)
    seat = Solid((-0.46 * length, -0.16, 2 * radius), (-0.04 * length, 0.16, 0.80), paint)
    seat.decal('rear', 0.1, 0.9, 0.2, 0.9, TAILLIGHT, False).paint(DARK, 'top')
    tank = Solid((-0.04 * length, -0.19, 2 * radius), (bar, 0.19, 0.95), paint, top=(-0.02 * length, bar, -0.13, 0.13))
    bar_top = 1.12 if rider else height
    fork = Solid((bar, -0.17, 2 * radius), (bar + 0.16 * length, 0.17, 0.92), paint)
    fork.decal('front', 0.15, 0.85, 0.25, 0.9, HEADLIGHT, False)
    handlebar = Solid(
        (bar, -width / 2, 0.92),
        (bar + 0.1, width / 2, bar_top),
        (60, 60, 60),
        top=(bar, bar + 0.06, -0.3 * width, 0.3 * width),
    )
    solids: list[Solid | Disc] = [*wheels, engine, seat, tank, fork, handlebar]
    if rider:
        solids += _rider(-0.30 * length, 0.12 * length, width, 0.95, height, rng, _pick(rng, CYCLE_PAINT))
    return solids


def _bicycle(length: float, width: float, height: float, rng: np.random.Generator, rider: bool) -> list[Solid | Disc]:
    paint, half = _pick(rng, CYCLE_PAINT), length / 2
    radius, bar = 0.33, 0.20 * length
    wheels = [Disc(sign * (half - radius), radius, 0.05, (50, 50, 50), (185, 185, 180)) for sign in (-1, 1)]
    gap = half - 2 * radius
    down_tube = Solid((-gap, -0.04, 0.25), (gap, 0.04, 2 * radius), paint)
    frame = Solid((-0.25 * length, -0.04, 2 * radius), (bar, 0.04, 0.78), paint)
    frame.decal('rear', 0.0, 1.0, 0.2, 0.8, TAILLIGHT, False)
    fork = Solid((bar, -0.05, 2 * radius), (bar + 0.08, 0.05, 0.92), paint)
    bar_top = 1.02 if rider else height
    handlebar = Solid(
        (bar, -width / 2, 0.92),
        (bar + 0.08, width / 2, bar_top),
        (50, 50, 50),
        top=(bar, bar + 0.06, -0.42 * width, 0.42 * width),
    )
    solids: list[Solid | Disc] = [*wheels, down_tube, frame, fork, handlebar]
    if rider:
        legs = Solid((-0.20 * length, -0.17, 0.78), (0.06 * length, 0.17, 0.95), _pick(rng, TROUSERS))
        solids += [legs, *_rider(-0.22 * length, 0.14 * length, width, 0.95, height, rng, (60, 70, 90))]
    else:
        solids.append(Solid((-0.22 * length, -0.08, 0.78), (-0.08 * length, 0.08, 0.95), DARK))
    return solids


def _pedestrian(length: float, width: float, height: float, rng: np.random.Generator, walking: bool) -> list[Solid]:
    shirt, trousers, skin = _pick(rng, CLOTHES), _pick(rng, TROUSERS), SKIN[rng.integers(len(SKIN))]
    hip, neck, half = 0.47 * height, 0.83 * height, length / 2
    stance = (0.0, half, -half, 0.0) if walking else (-0.25 * half, half, -half, 0.5 * half)
    left = Solid(
        (stance[0], 0.02, 0.0),
        (stance[1], 0.36 * width, hip),
        trousers,
        bottom=(stance[1] - 0.26, stance[1], 0.02, 0.36 * width),
        top=(0.0 if walking else -0.12, 0.14, 0.02, 0.30 * width),
    )
    right = Solid(
        (stance[2], -0.36 * width, 0.0),
        (stance[3], -0.02, hip),
        trousers,
        bottom=(stance[2], stance[2] + 0.26, -0.36 * width, -0.02),
        top=(-0.14, 0.0 if walking else 0.12, -0.30 * width, -0.02),
    )
    torso = Solid(
        (-0.17, -width / 2, hip), (0.17, width / 2, neck), shirt, top=(-0.13, 0.13, -0.36 * width, 0.36 * width)
    )
    torso.decal('front', 0.38, 0.62, 0.1, 0.98, _lighter(shirt))
    if rng.random() < 0.6:
        torso.decal('rear', 0.2, 0.8, 0.2, 0.9, _darker(shirt, 0.45))
    head = Solid((-0.12, -0.11, neck), (0.12, 0.11, height), (45, 50, 65))
    head.decal('front', 0.05, 0.95, 0.0, 0.72, skin).side_decal(0.5, 1.0, 0.0, 0.65, skin)
    return [left, right, torso, head]


def _traffic_cone(length: float, width: float, height: float, rng: np.random.Generator) -> list[Solid]:
    base = Solid((-length / 2, -width / 2, 0.0), (length / 2, width / 2, 0.07 * height), _darker(ORANGE, 0.6))
    body = Solid(
        (-0.40 * length, -0.40 * width, 0.07 * height),
        (0.40 * length, 0.40 * width, height),
        ORANGE,
        top=(-0.09 * length, 0.09 * length, -0.09 * width, 0.09 * width),
    )
    for face in ('front', 'rear', 'left', 'right'):
        body.decal(face, 0.0, 1.0, 0.30, 0.50, WHITE).decal(face, 0.0, 1.0, 0.66, 0.80, WHITE)
    return [base, body]


def _barrier(length: float, width: float, height: float, rng: np.random.Generator) -> list[Solid]:
    body = Solid(
        (-length / 2, -width / 2, 0.0),
        (length / 2, width / 2, height),
        WHITE,
        top=(-0.25 * length, 0.25 * length, -width / 2, width / 2),
    )
    for face in ('front', 'rear'):
        for k in range(4):
            body.stripe(face, 0.25 * k + 0.02, 0.25 * k + 0.14, 0.07, 0.0, 1.0, RED)
    return [body.paint(RED, 'left', 'right', 'top')]


def _building(length: float, width: float, height: float, rng: np.random.Generator) -> list[Solid]:
    wall = _pick(rng, WALLS)
    body = Solid((-length / 2, -width / 2, 0.0), (length / 2, width / 2, height), wall)
    floors = max(1, int(height / 3.3))
    for face in ('front', 'rear', 'left', 'right'):
        span = width if face in ('front', 'rear') else length
        bays = max(1, int(span / 4.5))
        for floor in range(floors):
            body.decal(face, 0.03, 0.97, (floor + 0.35) / floors, (floor + 0.80) / floors, (120, 108, 96))
        for bay in range(1, bays):
            body.decal(face, bay / bays - 0.12 / bays, bay / bays + 0.12 / bays, 0.0, 1.0, wall)
    return [body]


def _tree(length: float, width: float, height: float, rng: np.random.Generator) -> list[Solid]:
    green = _as_colour(np.array([45, 105, 60]) + rng.normal(0, 10, 3))
    trunk = Solid((-0.14, -0.14, 0.0), (0.14, 0.14, 0.35 * height), (50, 70, 90))
    lower = Solid(
        (-length / 2, -width / 2, 0.35 * height),
        (length / 2, width / 2, 0.68 * height),
        _darker(green, 0.8),
        bottom=(-0.3 * length, 0.3 * length, -0.3 * width, 0.3 * width),
    )
    upper = Solid(
        (-length / 2, -width / 2, 0.68 * height),
        (length / 2, width / 2, height),
        green,
        top=(-0.2 * length, 0.2 * length, -0.2 * width, 0.2 * width),
    )
    return [trunk, lower, upper]


TWO_WHEELERS = {'bicycle': _bicycle, 'motorcycle': _motorcycle}
OTHER_SHAPES = {
    'car': _car,
    'truck': _truck,
    'trailer': _trailer,
    'bus': _bus,
    'construction_vehicle': _construction_vehicle,
    'traffic_cone': _traffic_cone,
    'barrier': _barrier,
    'building': _building,
    'tree': _tree,
}
