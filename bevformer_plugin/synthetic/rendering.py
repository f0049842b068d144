"""Camera images of a scene: ground and sky by exact remapping, solids as polygons drawn back to front.

Pixel coordinates are those of nuScenes: a point p in the camera's frame projects to ``K @ p``, and pixel column c
covers [c, c + 1), so that the middle of the first pixel is at (0.5, 0.5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from bevformer_plugin.synthetic import ground
from bevformer_plugin.synthetic.rig import Camera, ego_to_global
from bevformer_plugin.synthetic.scenario import Light, Scenario

NEAR = 0.25  # metres before the camera at which polygons are cut
SUPERSAMPLING = 2  # objects are drawn so many times larger than the image, against jagged edges
FRACTION_BITS = 4  # of OpenCV's fixed-point coordinates
SCENERY_SIGHT = {'building': 170.0, 'tree': 110.0}  # metres up to which scenery is drawn
OBJECT_SIGHT = 90.0  # metres up to which objects of the ten classes are drawn
HAZE_LENGTH = 260.0  # metres after which haze leaves 1 / e of a colour
NOISE_SIGMA = 2.5  # of 255 levels


@dataclasses.dataclass(frozen=True)
class View:
    """What stays the same in the images of a camera over a scene.

    Attributes:
        camera: its calibration.
        size: (width, height) of the images in pixels.
        is_ground: (H, W) uint8, 255 where the ray of a pixel meets the ground.
        haze: (H, W, 1) float32, share of haze on the ground.
        bands: (first row, last row + 1, level of the texture) that together cover the ground.
        azimuth, elevation: (sky_rows, W) float32, direction of each pixel's ray in the ego frame, radians.
        sky_rows: number of rows, from the top, that may show sky.
        half_fov: radians from the camera's axis to the farthest side of its images, seen from above.
    """

    camera: Camera
    size: tuple[int, int]
    is_ground: np.ndarray
    haze: np.ndarray
    bands: list[tuple[int, int, int]]
    azimuth: np.ndarray
    elevation: np.ndarray
    sky_rows: int
    half_fov: float


def make_view(camera: Camera, size: tuple[int, int]) -> View:
    """Precompute a camera's rays for images of ``size`` (width, height)."""
    width, height = size
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    pixels = np.stack([column, row, np.ones_like(row)], axis=-1)
    rays = pixels @ np.linalg.inv(camera.intrinsic).T @ camera.rotation.rotation_matrix.T
    horizontal = np.linalg.norm(rays[..., :2], axis=-1)
    elevation = np.arctan2(rays[..., 2], horizontal)
    is_ground = rays[..., 2] < -1e-4
    reach = np.where(is_ground, camera.translation[2] * horizontal / np.maximum(-rays[..., 2], 1e-4), np.inf)
    sky_rows = int(np.flatnonzero((~is_ground).any(axis=1)).max(initial=-1)) + 1
    ground_rows = int(np.flatnonzero(is_ground.any(axis=1)).min(initial=height))
    # A pixel's footprint on the ground is depth / f wide and depth^2 / (f * camera height) long: take their mean.
    focal, depth = camera.intrinsic[0, 0], np.where(is_ground, reach, 200.0).min(axis=1)
    footprint = depth / focal * np.sqrt(np.maximum(depth / camera.translation[2], 1.0))
    level = np.clip(np.floor(np.log2(np.maximum(footprint / ground.RESOLUTION, 1.0))), 0, ground.LEVELS - 1)
    bands: list[tuple[int, int, int]] = []
    first = ground_rows
    for last in range(ground_rows + 1, height + 1):
        if last == height or level[last] != level[first]:
            bands.append((first, last, int(level[first])))
            first = last
    azimuth = np.arctan2(rays[..., 1], rays[..., 0])
    centre = np.arctan2(*camera.rotation.rotation_matrix[1::-1, 2])
    azimuth = centre + np.angle(np.exp(1j * (azimuth - centre)))
    haze = (1 - np.exp(-np.minimum(reach, 1e4) / HAZE_LENGTH))[..., None].astype(np.float32)
    half_fov = float(np.abs(azimuth - centre).max()) + 0.02
    return View(
        camera,
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

    def __init__(self, scenario: Scenario, image_size: tuple[int, int], seed: int) -> None:
        self.scenario, self.size = scenario, image_size
        rng = np.random.default_rng([seed, 1])
        columns, rows = (round(metres / ground.RESOLUTION) for metres in scenario.map_size)
        self.labels = ground.label_raster(scenario.road, (0.0, 0.0), (rows, columns), rng)
        self._pyramid = ground.texture_pyramid(self.labels, seed)
        light = scenario.light
        self._panorama = ground.panorama(light.sky_bottom, light.sky_top, rng)
        self._haze_colour = light.sky_bottom
        self._views = {
            name: make_view(sensor, image_size) for name, sensor in scenario.rig.items() if isinstance(sensor, Camera)
        }
        self._noise = rng.normal(0, NOISE_SIGMA, (3 * self.size[1], 3 * self.size[0], 3)).round().astype(np.int8)
        ramp = np.arange(256)[:, None] * light.tint
        self._tone = np.clip(ramp, 0, 255).round().astype(np.uint8).reshape(256, 1, 3)
        self._sight = np.array([SCENERY_SIGHT.get(actor.name, OBJECT_SIGHT) for actor in scenario.actors])
        self._half = np.array([actor.size[:2] for actor in scenario.actors]).reshape(-1, 2) / 2
        self._heights = np.array([actor.size[2] for actor in scenario.actors])

    def render(
        self, channel: str, timestamp: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, dict[int, tuple[float, float]]]:
        """Draw the image of one camera at one time.

        Args:
            channel: the camera's name.
            timestamp: microseconds.
            rng: source of the noise.

        Returns:
            The image, uint8 BGR (H, W, 3), and for each actor in it, by its index, how many pixels of the actor are
            visible and how many pixels of the image lie within its outline.
        """
        view = self._views[channel]
        ego = self.scenario.ego_poses([timestamp])[0]
        camera_to_global = ego_to_global(ego) @ view.camera.to_ego
        poses = self.scenario.actor_poses(timestamp)
        order = self._back_to_front(poses, camera_to_global, view)
        image = self._background(view, ego, camera_to_global)
        image = self._shadows(image, poses, order, camera_to_global, view)
        large_size = (SUPERSAMPLING * self.size[0], SUPERSAMPLING * self.size[1])
        canvas = cv2.resize(image, large_size, interpolation=cv2.INTER_NEAREST)
        outlines = self._draw_actors(canvas, poses, order, camera_to_global, view)
        image = cv2.resize(canvas, self.size, interpolation=cv2.INTER_AREA)
        return self._develop(image, rng), self._visible_pixels(outlines)

    def _background(self, view: View, ego: np.ndarray, camera_to_global: np.ndarray) -> np.ndarray:
        """Draw sky and ground as a camera (4, 4) sees them from the ego vehicle's pose (3,)."""
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
        plane = view.camera.intrinsic @ to_camera[:3, [0, 1, 3]]  # ground (x, y, 1) -> pixel
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

    def _back_to_front(self, poses: np.ndarray, camera_to_global: np.ndarray, view: View) -> list[int]:
        """Return the indices of the actors in sight, each of them after all that it may hide."""
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
        in_sight = np.flatnonzero(
            (low < view.half_fov) & (high > -view.half_fov) & (forward.max(axis=1) > NEAR) & (reach < self._sight)
        )
        low, high, reach = low[in_sight], high[in_sight], reach[in_sight]
        poses, half = poses[in_sight], self._half[in_sight]
        first, second = np.nonzero(np.triu(np.minimum(high[:, None], high) - np.maximum(low[:, None], low) > 0, k=1))
        ray = 0.5 * (np.maximum(low[first], low[second]) + np.minimum(high[first], high[second]))
        ray = ray + np.arctan2(axis[1], axis[0])
        direction = np.stack([np.cos(ray), np.sin(ray)], axis=1)
        distance_to_first = _entry(eye, direction, poses[first], half[first])
        is_nearer = distance_to_first < _entry(eye, direction, poses[second], half[second])
        hides = np.zeros((len(in_sight), len(in_sight)), dtype=bool)  # hides[i, j]: i stands before j
        hides[first[is_nearer], second[is_nearer]] = True
        hides[second[~is_nearer], first[~is_nearer]] = True
        order: list[int] = []
        waiting = np.ones(len(in_sight), dtype=bool)
        blocked = hides.sum(axis=1)  # how many of the actors behind this one are still to be drawn
        while waiting.any():
            ready = np.flatnonzero(waiting & (blocked == blocked[waiting].min()))
            chosen = ready[np.argmax(reach[ready])]
            order.append(int(in_sight[chosen]))
            waiting[chosen] = False
            blocked = blocked - hides[:, chosen]
        return order

    def _shadows(
        self, image: np.ndarray, poses: np.ndarray, order: list[int], camera_to_global: np.ndarray, view: View
    ) -> np.ndarray:
        """Darken the ground where actors keep the sun from it."""
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
                pixels = footprint @ view.camera.intrinsic.T
                hull = cv2.convexHull((pixels[:, :2] / pixels[:, 2:]).astype(np.float32))
                _fill(mask, hull.reshape(-1, 2), (255,), 1)
        shade = cv2.merge([mask, mask, mask])
        return cv2.subtract(image, cv2.multiply(image, shade, scale=light.shadow / 255))

    def _draw_actors(
        self, canvas: np.ndarray, poses: np.ndarray, order: list[int], camera_to_global: np.ndarray, view: View
    ) -> list[tuple[int, np.ndarray]]:
        """Draw the actors onto the canvas.

        Returns:
            The index of each actor drawn and its outline (n, 2) in pixels of the image, in drawing order.
        """
        eye, rotation = camera_to_global[:3, 3], camera_to_global[:3, :3]
        outlines: list[tuple[int, np.ndarray]] = []
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
            brightness = _brightness(normals, self.scenario.light)
            colours = model.colours[chosen] * np.where(model.shaded[chosen], brightness, 1.0)[:, None]
            haze = 1 - np.exp(-np.linalg.norm(local_eye[:2]) / HAZE_LENGTH)
            colours = ((1 - haze) * colours + haze * self._haze_colour).clip(0, 255).tolist()
            outline = self._draw_polygons(canvas, corners, colours, view.camera.intrinsic)
            if outline is not None:
                outlines.append((index, outline))
        return outlines

    def _draw_polygons(
        self, canvas: np.ndarray, corners: np.ndarray, colours: list[list[float]], intrinsic: np.ndarray
    ) -> np.ndarray | None:
        """Draw polygons onto the canvas.

        Args:
            canvas: ``SUPERSAMPLING`` times as large as the image.
            corners: (n, 8, 3) in the camera's frame.
            colours: of the polygons, BGR.
            intrinsic: (3, 3) of the camera.

        Returns:
            Outline (k, 2), in pixels of the image, of all polygons together; None if nothing lies before the camera.
        """
        too_near = corners[..., 2] < NEAR
        drawn: list[np.ndarray] = []
        if not too_near.any():
            pixels = corners @ intrinsic.T
            pixels = pixels[..., :2] / pixels[..., 2:]
            inside = ((pixels.max(axis=1) > 0) & (pixels.min(axis=1) < self.size)).all(axis=1)
            fixed = _fixed_point(pixels, SUPERSAMPLING)
            for k in np.flatnonzero(inside):
                cv2.fillConvexPoly(canvas, fixed[k], colours[k], cv2.LINE_8, FRACTION_BITS)
            drawn.append(pixels.reshape(-1, 2))
        else:
            for polygon, is_cut, colour in zip(corners, too_near, colours, strict=True):
                if is_cut.all():
                    continue
                polygon = _clip_near(polygon)
                pixels = polygon @ intrinsic.T
                pixels = pixels[:, :2] / pixels[:, 2:]
                _fill(canvas, pixels, colour, SUPERSAMPLING)
                drawn.append(pixels)
        if not drawn or not sum(map(len, drawn)):
            return None
        return cv2.convexHull(np.concatenate(drawn).astype(np.float32)).reshape(-1, 2)

    def _visible_pixels(self, outlines: list[tuple[int, np.ndarray]]) -> dict[int, tuple[float, float]]:
        """Count visible pixels and pixels within the outline of each actor, see :meth:`render`."""
        width, height = self.size
        owner = np.full((height, width), -1, np.int16)
        frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        areas: dict[int, float] = {}
        for index, outline in outlines:
            areas[index] = cv2.intersectConvexConvex(outline, frame)[0] if len(outline) > 2 else 0.0
            _fill(owner, outline, (index,), 1)
        visible = np.bincount(owner[owner >= 0], minlength=len(self.scenario.actors))
        return {index: (float(visible[index]), area) for index, area in areas.items() if area > 0.5}

    def _develop(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Give an image the tint of the scene's light and the noise of a camera."""
        height, width = image.shape[:2]
        row, column = rng.integers(0, 2 * height), rng.integers(0, 2 * width)
        noise = self._noise[row : row + height, column : column + width]
        return cv2.add(cv2.LUT(image, self._tone), noise, dtype=cv2.CV_8U)


def _brightness(normals: np.ndarray, light: Light) -> np.ndarray:
    """Return the brightness (n,) of faces with global normals (n, 3).

    Light comes from the sky, from the sun, and weakly from the side, so that faces in the shade differ.
    """
    across = np.array([light.sun[1], -light.sun[0], 0.0])
    fill = 1 + 0.12 * normals[:, 2] + 0.10 * normals @ across
    return light.ambient * fill + light.direct * np.maximum(normals @ light.sun, 0)


def _rectangles(poses: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Return the corners (n, 4, 2) of rectangles with poses (n, 3) and half sizes (n, 2)."""
    cos, sin = np.cos(poses[:, 2])[:, None], np.sin(poses[:, 2])[:, None]
    a = half[:, :1] * np.array([1, 1, -1, -1])
    b = half[:, 1:] * np.array([1, -1, -1, 1])
    return np.stack([poses[:, :1] + a * cos - b * sin, poses[:, 1:2] + a * sin + b * cos], axis=-1)


def _entry(eye: np.ndarray, direction: np.ndarray, poses: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Return the distances (n,) at which rays of unit directions (n, 2) from an eye (2,) enter rectangles."""
    cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    offset = eye - poses[:, :2]
    start = np.stack([offset[:, 0] * cos + offset[:, 1] * sin, offset[:, 1] * cos - offset[:, 0] * sin], axis=1)
    step = np.stack(
        [direction[:, 0] * cos + direction[:, 1] * sin, direction[:, 1] * cos - direction[:, 0] * sin], axis=1
    )
    step = np.where(np.abs(step) < 1e-9, 1e-9, step)
    return np.minimum((-half - start) / step, (half - start) / step).max(axis=1)


def _clip_near(polygon: np.ndarray) -> np.ndarray:
    """Cut off the part of a polygon (n, 3) that is nearer to the camera than ``NEAR``."""
    kept = []
    for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if start[2] >= NEAR:
            kept.append(start)
        if (start[2] >= NEAR) != (end[2] >= NEAR):
            kept.append(start + (end - start) * (NEAR - start[2]) / (end[2] - start[2]))
    return np.array(kept)


def _fixed_point(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Turn coordinates in which pixel k covers [k, k + 1) into OpenCV's fixed-point ones, in which it is at k.

    Args:
        pixels: (..., 2) of an image.
        scale: how many times larger the canvas is than that image.
    """
    limit = 2.0**20
    return np.round(((pixels * scale - 0.5) * 2**FRACTION_BITS).clip(-limit, limit)).astype(np.int32)


def _fill(canvas: np.ndarray, pixels: np.ndarray, colour: Sequence[float], scale: int) -> None:
    """Fill a convex polygon (n, 2), see :func:`_fixed_point`."""
    cv2.fillConvexPoly(canvas, _fixed_point(pixels, scale), colour, cv2.LINE_8, FRACTION_BITS)
