"""Camera images of a scene: ground and sky by exact remapping, solids as polygons drawn back to front.

Pixel (0, 0) is the centre of the upper left pixel's area moved by half a pixel, as in nuScenes: a point projects to
``K @ p`` and pixel column c covers [c, c + 1).
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from bevformer_plugin.synthetic import ground
from bevformer_plugin.synthetic.rig import Sensor, ego_to_global
from bevformer_plugin.synthetic.scenario import Scenario

NEAR = 0.25
SUPERSAMPLING = 2
FRACTION_BITS = 4
SIGHT = {'building': 170.0, 'tree': 110.0}
OBJECT_SIGHT = 90.0
HAZE_LENGTH = 260.0
NOISE_SIGMA = 2.5


@dataclasses.dataclass(frozen=True)
class View:
    """What of a camera stays the same over a scene.

    Attributes:
        directions: (H, W, 3) viewing rays in the ego frame, x forward.
        is_ground: (H, W) uint8, 255 where the ray meets the ground.
        haze: (H, W, 1) float32, share of haze on the ground.
        bands: (first row, last row + 1, pyramid level) that cover the ground.
        azimuth, elevation: (H, W) float32, rows above the horizon band only.
        sky_rows: number of rows that may show sky.
    """

    sensor: Sensor
    size: tuple[int, int]
    is_ground: np.ndarray
    haze: np.ndarray
    bands: list[tuple[int, int, int]]
    azimuth: np.ndarray
    elevation: np.ndarray
    sky_rows: int
    half_fov: float


def make_view(sensor: Sensor, size) -> View:
    """Precompute a camera's rays for images of ``size`` (width, height)."""
    width, height = size
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    pixels = np.stack([column, row, np.ones_like(row)], axis=-1)
    rays = pixels @ np.linalg.inv(sensor.intrinsic).T @ sensor.rotation.rotation_matrix.T
    horizontal = np.linalg.norm(rays[..., :2], axis=-1)
    elevation = np.arctan2(rays[..., 2], horizontal)
    is_ground = rays[..., 2] < -1e-4
    reach = np.where(is_ground, sensor.translation[2] * horizontal / np.maximum(-rays[..., 2], 1e-4), np.inf)
    sky_rows = int(np.flatnonzero((~is_ground).any(axis=1)).max(initial=-1)) + 1
    ground_rows = int(np.flatnonzero(is_ground.any(axis=1)).min(initial=height))
    # A pixel's footprint on the ground is depth / f wide and depth^2 / (f * camera height) long: take their mean.
    focal, depth = sensor.intrinsic[0, 0], np.where(is_ground, reach, 200.0).min(axis=1)
    footprint = depth / focal * np.sqrt(np.maximum(depth / sensor.translation[2], 1.0))
    level = np.clip(np.floor(np.log2(np.maximum(footprint / ground.RESOLUTION, 1.0))), 0, ground.LEVELS - 1)
    bands, first = [], ground_rows
    for last in range(ground_rows + 1, height + 1):
        if last == height or level[last] != level[first]:
            bands.append((first, last, int(level[first])))
            first = last
    azimuth = np.arctan2(rays[..., 1], rays[..., 0])
    centre = np.arctan2(*sensor.rotation.rotation_matrix[1::-1, 2])
    azimuth = centre + np.angle(np.exp(1j * (azimuth - centre)))
    haze = (1 - np.exp(-np.minimum(reach, 1e4) / HAZE_LENGTH))[..., None].astype(np.float32)
    half_fov = float(np.abs(azimuth - centre).max()) + 0.02
    return View(
        sensor,
        size,
        is_ground.astype(np.uint8) * 255,
        haze,
        bands,
        azimuth[:sky_rows].astype(np.float32),
        elevation[:sky_rows].astype(np.float32),
        sky_rows,
        half_fov,
    )


class SceneRenderer:
    """Draws the images of one scene.

    Args:
        scenario: the scene.
        image_size: (width, height) in pixels.
        seed: seed of the ground texture and the noise.
    """

    def __init__(self, scenario: Scenario, image_size, seed: int):
        self.scenario, self.size = scenario, tuple(image_size)
        rng = np.random.default_rng([seed, 1])
        shape = tuple(round(metres / ground.RESOLUTION) for metres in scenario.map_size[::-1])
        self.labels = ground.label_raster(scenario.road, (0.0, 0.0), shape, rng)
        self._pyramid = ground.texture_pyramid(self.labels, seed)
        light = scenario.light
        self._panorama = ground.panorama(light.sky_bottom, light.sky_top, rng)
        self._haze_colour = np.array(light.sky_bottom)
        self._views = {
            name: make_view(sensor, image_size)
            for name, sensor in scenario.rig.items()
            if sensor.intrinsic is not None
        }
        self._noise = rng.normal(0, NOISE_SIGMA, (3 * self.size[1], 3 * self.size[0], 3)).round().astype(np.int8)
        ramp = np.arange(256)[:, None] * light.tint
        self._tone = np.clip(ramp, 0, 255).round().astype(np.uint8).reshape(256, 1, 3)
        self._sight = np.array([SIGHT.get(actor.name, OBJECT_SIGHT) for actor in scenario.actors])
        self._half = np.array([actor.size[:2] for actor in scenario.actors]).reshape(-1, 2) / 2
        self._heights = np.array([actor.size[2] for actor in scenario.actors])

    def render(self, channel: str, timestamp: int, rng: np.random.Generator):
        """Draw one camera at one time.

        Returns:
            image: uint8 BGR (H, W, 3).
            pixels: {actor index: (visible pixels, all pixels of its outline within the image)}.
        """
        view = self._views[channel]
        ego = self.scenario.ego_poses([timestamp])[0]
        camera_to_global = ego_to_global(ego) @ view.sensor.to_ego
        poses = self.scenario.actor_poses(timestamp)
        order = self._back_to_front(poses, camera_to_global, view)
        image = self._background(view, ego, camera_to_global)
        image = self._shadows(image, poses, order, camera_to_global, view)
        factor = SUPERSAMPLING
        canvas = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
        outlines = self._draw_actors(canvas, poses, order, camera_to_global, view)
        image = cv2.resize(canvas, self.size, interpolation=cv2.INTER_AREA)
        return self._develop(image, rng), self._visible_pixels(outlines)

    def _background(self, view, ego, camera_to_global):
        width, height = self.size
        image = np.empty((height, width, 3), np.uint8)
        if view.sky_rows:
            turn = ground.PANORAMA_WIDTH / (2 * np.pi)
            base = (ego[2] + np.pi + view.azimuth.min()) % (2 * np.pi)
            column = (turn * (base + view.azimuth - view.azimuth.min())).astype(np.float32)
            down = (ground.PANORAMA_HEIGHT - 1) / (ground.PANORAMA_HIGH - ground.PANORAMA_LOW)
            row = (down * (ground.PANORAMA_HIGH - view.elevation)).astype(np.float32)
            image[: view.sky_rows] = cv2.remap(
                self._panorama, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
        to_camera = np.linalg.inv(camera_to_global)
        plane = view.sensor.intrinsic @ to_camera[:3, [0, 1, 3]]  # ground (x, y, 1) -> pixel
        for first, last, level in view.bands:
            resolution = ground.RESOLUTION * 2**level
            # Both rasters have their sample k at coordinate k + 1/2.
            texture = np.array([[resolution, 0, resolution / 2], [0, resolution, resolution / 2], [0, 0, 1]])
            pixel = np.array([[1, 0, -0.5], [0, 1, -0.5 - first], [0, 0, 1]])
            band = cv2.warpPerspective(
                self._pyramid[level],
                pixel @ plane @ texture,
                (width, last - first),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=ground.COLOURS[ground.GRASS].tolist(),
            )
            haze = view.haze[first:last]
            band = (band * (1 - haze) + haze * self._haze_colour.astype(np.float32)).astype(np.uint8)
            cv2.copyTo(band, view.is_ground[first:last], image[first:last])
        return image

    def _back_to_front(self, poses, camera_to_global, view):
        """Indices of the actors in sight, ordered so that each comes after all that it may hide."""
        eye, axis = camera_to_global[:2, 3], camera_to_global[:2, 2]
        corners = _rectangles(poses, self._half)
        offset = corners - eye
        forward = offset @ axis / np.linalg.norm(axis)
        sideways = offset @ np.array([-axis[1], axis[0]]) / np.linalg.norm(axis)
        angle = np.arctan2(sideways, forward)
        middle = np.arctan2(sideways.mean(axis=1), forward.mean(axis=1))[:, None]
        angle = middle + np.angle(np.exp(1j * (angle - middle)))
        low, high = angle.min(axis=1), angle.max(axis=1)
        reach = np.linalg.norm(offset, axis=-1).min(axis=1)
        seen = np.flatnonzero(
            (low < view.half_fov) & (high > -view.half_fov) & (forward.max(axis=1) > NEAR) & (reach < self._sight)
        )
        low, high, reach = low[seen], high[seen], reach[seen]
        first, second = np.nonzero(np.triu(np.minimum(high[:, None], high) - np.maximum(low[:, None], low) > 0, k=1))
        ray = 0.5 * (np.maximum(low[first], low[second]) + np.minimum(high[first], high[second]))
        ray = ray + np.arctan2(axis[1], axis[0])
        direction = np.stack([np.cos(ray), np.sin(ray)], axis=1)
        nearer = _entry(eye, direction, poses[seen[first]], self._half[seen[first]]) < _entry(
            eye, direction, poses[seen[second]], self._half[seen[second]]
        )
        hides = np.zeros((len(seen), len(seen)), dtype=bool)  # hides[i, j]: i stands before j
        hides[first[nearer], second[nearer]] = True
        hides[second[~nearer], first[~nearer]] = True
        order, waiting = [], np.ones(len(seen), dtype=bool)
        blocked = hides.sum(axis=1)  # how many actors behind it are still to be drawn
        while waiting.any():
            ready = np.flatnonzero(waiting & (blocked == blocked[waiting].min()))
            chosen = ready[np.argmax(reach[ready])]
            order.append(int(seen[chosen]))
            waiting[chosen] = False
            blocked = blocked - hides[:, chosen]
        return order

    def _shadows(self, image, poses, order, camera_to_global, view):
        light = self.scenario.light
        if light.shadow == 0 or not order:
            return image
        mask = np.zeros(image.shape[:2], np.uint8)
        corners = _rectangles(poses[order], self._half[order])
        lean = -light.sun[:2] / light.sun[2]
        length = np.minimum(self._heights[order], 4.5)[:, None, None]
        points = np.concatenate([corners, corners + lean * length], axis=1)
        points = np.concatenate([points, np.zeros((*points.shape[:2], 1))], axis=2)
        local = (points - camera_to_global[:3, 3]) @ camera_to_global[:3, :3]
        for footprint in local:
            if footprint[:, 2].min() > NEAR:
                pixels = footprint @ view.sensor.intrinsic.T
                hull = cv2.convexHull((pixels[:, :2] / pixels[:, 2:]).astype(np.float32))
                _fill(mask, hull.reshape(-1, 2), 255, 1)
        shade = cv2.merge([mask, mask, mask])
        return cv2.subtract(image, cv2.multiply(image, shade, scale=light.shadow / 255))

    def _draw_actors(self, canvas, poses, order, camera_to_global, view):
        """Draw the actors; returns [(actor index, outline (n, 2) in image pixels)] in drawing order."""
        eye, rotation = camera_to_global[:3, 3], camera_to_global[:3, :3]
        light, outlines = self.scenario.light, []
        for index in order:
            model = self.scenario.actors[index].model
            x, y, yaw = poses[index]
            turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
            local_eye = (eye - (x, y, 0)) @ turn
            facing = np.einsum('pc,pc->p', model.normals, local_eye - model.centres) > 0
            chosen = np.concatenate([np.arange(*model.parts[part]) for part in model.drawing_order(local_eye)])
            chosen = chosen[facing[chosen]]
            corners = (model.corners[chosen] - local_eye) @ (turn.T @ rotation)
            normals = model.normals[chosen] @ turn.T
            brightness = _brightness(normals, light)
            colours = model.colours[chosen] * np.where(model.shaded[chosen], brightness, 1.0)[:, None]
            haze = 1 - np.exp(-np.linalg.norm(local_eye[:2]) / HAZE_LENGTH)
            colours = ((1 - haze) * colours + haze * self._haze_colour).clip(0, 255).tolist()
            outline = self._draw_polygons(canvas, corners, colours, view.sensor.intrinsic)
            if outline is not None:
                outlines.append((index, outline))
        return outlines

    def _draw_polygons(self, canvas, corners, colours, intrinsic):
        """Draw polygons (n, 8, 3) given in the camera frame; returns the hull of what lies before the camera."""
        near = corners[..., 2] < NEAR
        drawn = []
        if not near.any():
            pixels = corners @ intrinsic.T
            pixels = pixels[..., :2] / pixels[..., 2:]
            inside = ((pixels.max(axis=1) > 0) & (pixels.min(axis=1) < self.size)).all(axis=1)
            fixed = _fixed_point(pixels, SUPERSAMPLING)
            for k in np.flatnonzero(inside):
                cv2.fillConvexPoly(canvas, fixed[k], colours[k], cv2.LINE_8, FRACTION_BITS)
            drawn.append(pixels.reshape(-1, 2))
        else:
            for polygon, hidden, colour in zip(corners, near, colours, strict=True):
                if hidden.all():
                    continue
                polygon = _clip_near(polygon)
                pixels = polygon @ intrinsic.T
                pixels = pixels[:, :2] / pixels[:, 2:]
                _fill(canvas, pixels, colour, SUPERSAMPLING)
                drawn.append(pixels)
        if not drawn or not sum(map(len, drawn)):
            return None
        return cv2.convexHull(np.concatenate(drawn).astype(np.float32)).reshape(-1, 2)

    def _visible_pixels(self, outlines):
        width, height = self.size
        owner = np.full((height, width), -1, np.int16)
        frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        whole = {}
        for index, outline in outlines:
            whole[index] = cv2.intersectConvexConvex(outline, frame)[0] if len(outline) > 2 else 0.0
            _fill(owner, outline, index, 1)
        visible = np.bincount(owner[owner >= 0], minlength=len(self.scenario.actors))
        return {index: (float(visible[index]), whole[index]) for index, _ in outlines if whole[index] > 0.5}

    def _develop(self, image, rng):
        height, width = image.shape[:2]
        row, column = rng.integers(0, 2 * height), rng.integers(0, 2 * width)
        noise = self._noise[row : row + height, column : column + width]
        return cv2.add(cv2.LUT(image, self._tone), noise, dtype=cv2.CV_8U)


def _brightness(normals, light):
    """Brightness (n,) of faces with global normals (n, 3): sky from above, the sun, and a weak light across it."""
    across = np.array([light.sun[1], -light.sun[0], 0.0])
    fill = 1 + 0.12 * normals[:, 2] + 0.10 * normals @ across
    return light.ambient * fill + light.direct * np.maximum(normals @ light.sun, 0)


def _rectangles(poses, half):
    """Corners (n, 4, 2) of rectangles with poses (n, 3) and half sizes (n, 2)."""
    cos, sin = np.cos(poses[:, 2])[:, None], np.sin(poses[:, 2])[:, None]
    a = half[:, :1] * np.array([1, 1, -1, -1])
    b = half[:, 1:] * np.array([1, -1, -1, 1])
    return np.stack([poses[:, :1] + a * cos - b * sin, poses[:, 1:2] + a * sin + b * cos], axis=-1)


def _entry(eye, direction, poses, half):
    """Distances (n,) at which rays from ``eye`` enter rectangles."""
    cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    offset = eye - poses[:, :2]
    start = np.stack([offset[:, 0] * cos + offset[:, 1] * sin, offset[:, 1] * cos - offset[:, 0] * sin], axis=1)
    step = np.stack(
        [direction[:, 0] * cos + direction[:, 1] * sin, direction[:, 1] * cos - direction[:, 0] * sin], axis=1
    )
    step = np.where(np.abs(step) < 1e-9, 1e-9, step)
    return np.minimum((-half - start) / step, (half - start) / step).max(axis=1)


def _clip_near(polygon):
    """The part of a polygon (n, 3) that lies before the near plane, as a polygon."""
    kept = []
    for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if start[2] >= NEAR:
            kept.append(start)
        if (start[2] >= NEAR) != (end[2] >= NEAR):
            kept.append(start + (end - start) * (NEAR - start[2]) / (end[2] - start[2]))
    return np.array(kept)


def _fixed_point(pixels, scale):
    """Image coordinates with pixel k covering [k, k + 1) -> OpenCV's fixed point with pixel k at k."""
    limit = 2.0**20
    return np.round(((pixels * scale - 0.5) * 2**FRACTION_BITS).clip(-limit, limit)).astype(np.int32)


def _fill(image, pixels, colour, scale):
    cv2.fillConvexPoly(image, _fixed_point(pixels, scale), colour, cv2.LINE_8, FRACTION_BITS)
