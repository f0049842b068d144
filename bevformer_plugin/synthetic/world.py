"""Writes a whole synthetic world: images, point clouds, maps, CAN bus and tables, several scenes at a time."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.synchronize import Event

import cv2
import numpy as np
from nuscenes.utils.splits import create_splits_scenes
from tqdm import tqdm

from bevformer_plugin.errors import InputError
from bevformer_plugin.nuscenes_format import OFFICIAL_SPLITS
from bevformer_plugin.synthetic import objects
from bevformer_plugin.synthetic.ground import PAVED, RESOLUTION
from bevformer_plugin.synthetic.lidar import count_points, scan
from bevformer_plugin.synthetic.map_expansion import ExpansionWriter, Place, canvas_size, place_scenes
from bevformer_plugin.synthetic.rendering import SceneRenderer
from bevformer_plugin.synthetic.rig import CAMERA_MOUNTS, LIDAR
from bevformer_plugin.synthetic.scenario import Scenario, build_scenario, camera_timestamps
from bevformer_plugin.synthetic.tables import BoxAnnotation, TableWriter, can_bus_messages, file_name, map_file

VERSIONS = sorted(version for version, splits in OFFICIAL_SPLITS.items() if {'train', 'val'} == set(splits.values()))
JPEG_QUALITY = 92
FRAMES_PER_JOB = 40
SMALLEST_IMAGE = (64, 36)  # width, height
VISIBILITY_LIMITS = (0.4, 0.6, 0.8)  # visible shares of an object between the four levels of nuScenes


@dataclasses.dataclass(frozen=True)
class WorldSummary:
    """What a synthetic world holds, and how long it took to write.

    Attributes:
        root: the dataroot.
        scenes, keyframes, images: how many there are.
        boxes: annotated boxes by class.
        boxes_with_points: those of them that hold lidar points.
        seconds: duration of writing.
    """

    root: pathlib.Path
    scenes: int
    keyframes: int
    images: int
    boxes: dict[str, int]
    boxes_with_points: dict[str, int]
    seconds: float

    def table(self) -> str:
        """Return the summary as text for a terminal."""
        lines = [f'{"class":<22}{"boxes":>8}{"with points":>13}']
        lines += [f'{name:<22}{self.boxes[name]:>8}{self.boxes_with_points[name]:>13}' for name in self.boxes]
        lines += [f'{"all":<22}{sum(self.boxes.values()):>8}{sum(self.boxes_with_points.values()):>13}']
        rate = self.keyframes / self.seconds
        return '\n'.join(
            [
                *lines,
                f'{self.scenes} scenes, {self.keyframes} keyframes, {self.images} images in '
                f'{self.seconds:.1f} s ({rate:.1f} keyframes/s): {self.root}',
            ]
        )


@dataclasses.dataclass(frozen=True)
class _Scene:
    """What a worker needs to know to build a scene again; see :func:`build_scenario`."""

    name: str
    index: int
    frames: int
    seed: int
    image_size: tuple[int, int]


_Part = tuple[_Scene, range]  # some keyframes of a scene


def create_synthetic_world(
    out_dir: str | pathlib.Path,
    scenes_train: int,
    scenes_val: int,
    frames: int,
    seed: int,
    image_size: tuple[int, int],
    version: str = 'v1.0-mini',
    workers: int = 2,
    overwrite: bool = False,
) -> WorldSummary:
    """Write a dataroot in nuScenes format that the unmodified devkit opens.

    The same seed and sizes give the same bytes, for any number of workers. Everything is written to a temporary folder
    beside ``out_dir`` and renamed at the end, so an interrupted run leaves nothing.

    Args:
        out_dir: dataroot to create.
        scenes_train, scenes_val: number of scenes of the training and the validation split.
        frames: keyframes per scene, at 2 Hz.
        seed: seed of everything random.
        image_size: (width, height) in pixels.
        version: 'v1.0-mini' (8 + 2 scenes at most) or 'v1.0-trainval' (700 + 150).
        workers: processes.
        overwrite: replace an existing folder.

    Raises:
        InputError: a number, the version or the image size is out of range.
        FileExistsError: ``out_dir`` exists, is not empty and ``overwrite`` is off.
    """
    names = _scene_names(scenes_train, scenes_val, version)
    _check(frames, seed, image_size, workers)
    out_dir = pathlib.Path(out_dir).absolute()
    if out_dir.exists() and not out_dir.is_dir():
        raise FileExistsError(f'{out_dir} is a file: choose a folder')
    if out_dir.exists() and any(out_dir.iterdir()) and not overwrite:
        raise FileExistsError(f'{out_dir} is not empty: choose another folder or pass --overwrite')
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    width, height = image_size
    scenes = [_Scene(name, index, frames, seed, (width, height)) for index, name in enumerate(names)]
    root = pathlib.Path(tempfile.mkdtemp(prefix=f'.{out_dir.name}.', dir=out_dir.parent))
    try:
        root.chmod(0o755)
        annotations = _write_files(scenes, root, workers)
        scenarios = [_scenario(scene) for scene in scenes]
        places = place_scenes([scenario.map_size for scenario in scenarios])
        writer = TableWriter(seed, (width, height))
        for scenario, place in zip(scenarios, places, strict=True):
            writer.add_scene(scenario, annotations[scenario.name], place)
            messages = json.dumps(can_bus_messages(scenario, place.corner))
            (root / 'can_bus' / f'{scenario.name}_pose.json').write_text(messages)
        writer.write(root / version)
        _write_maps(scenarios, places, root, seed)
        _replace(root, out_dir)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    of_all_scenes = [annotation for of_scene in annotations.values() for annotation in of_scene]
    boxes = collections.Counter(annotation.name for annotation in of_all_scenes)
    boxes_with_points = collections.Counter(
        annotation.name for annotation in of_all_scenes if annotation.num_lidar_pts
    )
    keyframes = frames * len(scenes)
    return WorldSummary(
        out_dir,
        len(scenes),
        keyframes,
        len(CAMERA_MOUNTS) * keyframes,
        {name: boxes[name] for name in objects.KINDS},
        {name: boxes_with_points[name] for name in objects.KINDS},
        time.perf_counter() - begin,
    )


def _scene_names(scenes_train: int, scenes_val: int, version: str) -> list[str]:
    """Choose the names of scenes of the devkit's splits.

    Raises:
        InputError: the version is unknown, or a split cannot have so many scenes.
    """
    if version not in VERSIONS:
        raise InputError(f'version must be one of {VERSIONS}, got {version!r}')
    names: list[str] = []
    wanted_by_role = {'train': scenes_train, 'val': scenes_val}
    for split, role in OFFICIAL_SPLITS[version].items():
        available, wanted = create_splits_scenes()[split], wanted_by_role[role]
        if not isinstance(wanted, int) or wanted < 1:
            raise InputError(f'{split} needs at least 1 scene, got {wanted!r}')
        if wanted > len(available):
            other = 'choose version v1.0-trainval' if version == 'v1.0-mini' else 'ask for fewer'
            raise InputError(f'{wanted} scenes asked for {split}, which holds {len(available)} in {version}: {other}')
        names += available[:wanted]
    return names


def _check(frames: int, seed: int, image_size: Sequence[int], workers: int) -> None:
    """Refuse settings of :func:`create_synthetic_world` that are out of range.

    Raises:
        InputError: naming the setting and its value.
    """
    if not isinstance(frames, int) or not 2 <= frames <= 100:
        raise InputError(f'frames must be 2 to 100 (velocities need two keyframes), got {frames!r}')
    if not isinstance(seed, int) or seed < 0:
        raise InputError(f'seed must be a non-negative whole number, got {seed!r}')
    if not isinstance(workers, int) or workers < 1:
        raise InputError(f'workers must be at least 1, got {workers!r}')
    if len(image_size) != 2 or any(
        not isinstance(size, int) or size < least or size > 4096
        for size, least in zip(image_size, SMALLEST_IMAGE, strict=True)
    ):
        raise InputError(
            f'image_size must be (width, height) from {SMALLEST_IMAGE} to (4096, 4096), got {image_size!r}'
        )
    width, height = image_size
    if not 1.2 <= width / height <= 2.5:
        raise InputError(
            f'image_size must be 1.2 to 2.5 times as wide as high, as nuScenes images are, got {image_size}'
        )


def _write_files(scenes: list[_Scene], root: pathlib.Path, workers: int) -> dict[str, list[BoxAnnotation]]:
    """Write all files but the tables.

    Returns:
        The annotations of each scene, by its name, in time order.
    """
    for channel in (*CAMERA_MOUNTS, LIDAR):
        (root / 'samples' / channel).mkdir(parents=True)
    for folder in ('maps', 'can_bus'):
        (root / folder).mkdir()
    jobs = [
        (scene, range(first, min(first + FRAMES_PER_JOB, scene.frames)))
        for scene in scenes
        for first in range(0, scene.frames, FRAMES_PER_JOB)
    ]
    annotations: dict[str, dict[int, list[BoxAnnotation]]] = {scene.name: {} for scene in scenes}
    total = sum(scene.frames for scene in scenes)
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=total, unit='keyframe', desc='synthetic world'))
        for (scene, frames), of_frames in _run(jobs, root, min(workers, len(jobs)), stack):
            annotations[scene.name][frames.start] = of_frames
            bar.update(len(frames))
    return {
        name: [annotation for first_frame in sorted(parts) for annotation in parts[first_frame]]
        for name, parts in annotations.items()
    }


def _run(
    jobs: list[_Part], root: pathlib.Path, workers: int, stack: contextlib.ExitStack
) -> Iterator[tuple[_Part, list[BoxAnnotation]]]:
    """Yield each job with its annotations as it is done; the stack ends the workers."""
    if workers == 1:
        yield from (_write_keyframes(job, root) for job in jobs)
        return
    # Forked workers start at once; spawned ones would import torch and mmdet3d first.
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else None
    context = multiprocessing.get_context(method)
    stop = context.Event()
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker, (stop,))
    stack.callback(pool.shutdown, wait=True, cancel_futures=True)
    stack.callback(stop.set)
    futures = [pool.submit(_write_keyframes, job, root) for job in jobs]
    for future in concurrent.futures.as_completed(futures):
        yield future.result()


_stop_event: Event | None = None  # set in worker processes, which give up when it is set


def _start_worker(stop: Event) -> None:
    """Prepare a worker process; Ctrl-C is left to the main process, which sets ``stop``."""
    global _stop_event
    _stop_event = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)  # 1 would wait for threads of the parent's pool, which a fork does not copy


@functools.lru_cache(maxsize=2)
def _scenario(scene: _Scene) -> Scenario:
    return build_scenario(scene.name, scene.index, scene.frames, scene.seed, scene.image_size)


@functools.lru_cache(maxsize=1)
def _renderer(scene: _Scene) -> SceneRenderer:
    return SceneRenderer(_scenario(scene), scene.image_size, scene.seed)


def _write_keyframes(job: _Part, root: pathlib.Path) -> tuple[_Part, list[BoxAnnotation]]:
    """Write images and point clouds of some keyframes of a scene, and with the first its part of the map mask.

    Returns:
        The job and the annotations of its keyframes in time order.
    """
    scene, frames = job
    scenario, renderer = _scenario(scene), _renderer(scene)
    if frames.start == 0:
        mask = np.where(renderer.labels >= PAVED, 255, 0).astype(np.uint8)
        _write_image(_mask_part(root, scene.name), mask[::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])
    spans = scenario.annotated()
    annotations: list[BoxAnnotation] = []
    for frame in frames:
        if _stop_event is not None and _stop_event.is_set():
            break
        keyframe = int(scenario.keyframes[frame])
        rng = np.random.default_rng([scene.seed, scene.index, frame])
        pixels_of_actors = collections.defaultdict(lambda: np.zeros(2))  # visible, and within the outline
        for channel, timestamp in camera_timestamps(keyframe).items():
            image, pixels = renderer.render(channel, timestamp, rng)
            _write_image(
                root / file_name(scenario, channel, timestamp), image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            )
            for index, counts in pixels.items():
                pixels_of_actors[index] += counts
        points = scan(scenario, keyframe, rng)
        points.tofile(root / file_name(scenario, LIDAR, keyframe))
        present = [index for index, span in spans.items() if frame in span]
        annotations += _annotate(scenario, frame, present, points, pixels_of_actors)
    return job, annotations


def _mask_part(root: pathlib.Path, scene: str) -> pathlib.Path:
    """Return where a scene's part of the mask of its location lies until that is written."""
    return root / 'maps' / f'{scene}.png'


def _write_maps(scenarios: list[Scenario], places: list[Place], root: pathlib.Path, seed: int) -> None:
    """Write the map mask and the map expansion of each location, with its scenes at their places."""
    map_sizes = [scenario.map_size for scenario in scenarios]
    (root / 'maps' / 'expansion').mkdir()
    for location in dict.fromkeys(place.location for place in places):
        width, height = canvas_size(places, map_sizes, location)
        expansion = ExpansionWriter(seed, location, (width, height))
        rows, columns = round(height / RESOLUTION), round(width / RESOLUTION)
        mask = np.zeros((rows, columns), np.uint8)  # row 0 is the northern edge
        for scenario, place in zip(scenarios, places, strict=True):
            if place.location == location:
                expansion.add_scene(scenario, place.corner)
                part = _mask_part(root, scenario.name)
                pixels = cv2.imread(str(part), cv2.IMREAD_GRAYSCALE)
                left, bottom = (round(start / RESOLUTION) for start in place.corner)
                mask[rows - bottom - len(pixels) : rows - bottom, left : left + pixels.shape[1]] = pixels
                part.unlink()
        _write_image(root / map_file(seed, location), mask, [cv2.IMWRITE_PNG_COMPRESSION, 3])
        (root / 'maps' / 'expansion' / f'{location}.json').write_text(json.dumps(expansion.content))


def _annotate(
    scenario: Scenario, frame: int, present: list[int], points: np.ndarray, pixels_of_actors: dict[int, np.ndarray]
) -> list[BoxAnnotation]:
    """Annotate the actors of a keyframe.

    Args:
        scenario: the scene.
        frame: index of the keyframe.
        present: indices of the actors that get annotated.
        points: of the keyframe's scan.
        pixels_of_actors: visible pixels and pixels within the outline over all cameras, by the actor's index.
    """
    keyframe = int(scenario.keyframes[frame])
    poses = scenario.actor_poses(keyframe)
    counts = count_points(points, scenario, keyframe, present)
    annotations: list[BoxAnnotation] = []
    for index, count in zip(present, counts.tolist(), strict=True):
        actor = scenario.actors[index]
        x, y, yaw = poses[index].tolist()
        speed = float(actor.speeds(scenario.road, [scenario.seconds(keyframe)])[0])
        visible, outlined = pixels_of_actors.get(index, (0.0, 1.0))
        level = 1 + int(np.searchsorted(VISIBILITY_LIMITS, min(visible / outlined, 1.0), side='right'))
        annotations.append(
            BoxAnnotation(
                frame,
                index,
                actor.name,
                (x, y, yaw),
                objects.attribute(actor.name, speed, actor.parked, actor.rider),
                str(level),
                count,
                objects.radar_points(actor.name, count),
            )
        )
    return annotations


def _write_image(path: pathlib.Path, image: np.ndarray, options: list[int]) -> None:
    """Encode an image by the ending of its path, with OpenCV's options, and write it.

    Raises:
        OSError: it cannot be encoded.
    """
    is_encoded, data = cv2.imencode(path.suffix, image, options)
    if not is_encoded:
        raise OSError(f'could not encode {path}')
    path.write_bytes(data.tobytes())


def _replace(root: pathlib.Path, out_dir: pathlib.Path) -> None:
    """Move the finished folder to its place; an old one there is moved aside first and removed last."""
    if not out_dir.exists():
        root.rename(out_dir)
        return
    old = pathlib.Path(tempfile.mkdtemp(prefix=f'.{out_dir.name}.old.', dir=out_dir.parent))
    os.replace(out_dir, old)
    root.rename(out_dir)
    shutil.rmtree(old)
