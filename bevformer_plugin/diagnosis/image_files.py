"""Camera images of keyframes that are missing, cannot be read, or are of another size than their calibration."""

import concurrent.futures
import multiprocessing
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
from tqdm import tqdm

from bevformer_plugin.datasets.transforms import load_camera_image
from bevformer_plugin.errors import InputError

IMAGES_PER_JOB = 64


def image_faults(root: Path, records: list[dict], scenes: dict[str, str], workers: int) -> Iterator[str]:
    """Yield a complaint about each image that training would refuse or that is not there.

    A camera none of whose images of a scene is there gets one complaint for all of them. All code of an image is read.

    Args:
        root: dataroot.
        records: rows of ``sample_data`` of cameras' key frames, each with its ``channel``.
        scenes: name of the scene by token of a sample.
        workers: number of processes.
    """
    groups: dict[tuple[str, str], list[dict]] = {}
    for record in records:
        groups.setdefault((scenes.get(record['sample_token'], ''), record['channel']), []).append(record)
    present: list[dict] = []
    for (scene, channel), group in groups.items():
        there = [record for record in group if _is_there(root / record['filename'])]
        present += there
        if there or len(group) == 1:
            lost = {id(record) for record in group} - {id(record) for record in there}
            for record in group:
                if id(record) in lost:
                    yield f'{_origin(record)}: there is no such file under {root}, or it is empty'
        else:
            yield (
                f'{scene}, {channel}: none of its {len(group)} images is under {root}, the first is '
                f'{group[0]["filename"]}: unpack or copy them there, or leave the scene out'
            )
    with tqdm(total=len(present), desc='images', unit='image') as bar:
        for complaints, count in _read_all(root, present, workers):
            bar.update(count)
            yield from complaints


def _is_there(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _origin(record: dict) -> str:
    return f'{record["filename"]} (sample {record["sample_token"]}, {record["channel"]})'


def _read_all(root: Path, records: list[dict], workers: int) -> Iterator[tuple[list[str], int]]:
    """Yield the complaints about some images, and how many these are, in the order of the records."""
    jobs = [(root, records[first : first + IMAGES_PER_JOB]) for first in range(0, len(records), IMAGES_PER_JOB)]
    if workers == 1 or len(jobs) < 2:
        yield from map(_read, jobs)
        return
    fork = multiprocessing.get_context('fork')
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(jobs)), fork, _start_worker) as pool:
        yield from pool.map(_read, jobs)


def _start_worker() -> None:
    """Prepare a worker process; Ctrl-C is left to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)  # 1 would wait for threads of the parent's pool, which a fork does not copy


def _read(job: tuple[Path, Iterable[dict]]) -> tuple[list[str], int]:
    """Decode images as training does, at half their size, and return the complaints and the number of images."""
    root, records = job
    complaints, count = [], 0
    for record in records:
        count += 1
        size = {'width': record['width'], 'height': record['height']}
        half = (record['width'] or 0) // 2, (record['height'] or 0) // 2
        try:
            load_camera_image(str(root / record['filename']), size, _origin(record), halve_to=half)
        except (InputError, OSError) as error:
            complaints.append(str(error))
    return complaints, count
