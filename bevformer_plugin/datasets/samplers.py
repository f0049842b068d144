"""Samplers for testing frame by frame: whole scenes, in time order."""

from collections import deque
from collections.abc import Iterator

from mmdet3d.registry import DATA_SAMPLERS
from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from bevformer_plugin.errors import InputError

from .temporal_dataset import NuScenesTemporalDataset


@DATA_SAMPLERS.register_module()
class SceneStreamSampler(Sampler):
    """Gives each process whole scenes, one after another, frames in time order.

    Scenes go, longest first, to the process with the fewest frames so far. Every frame of the dataset is drawn
    exactly once over all processes; with more processes than scenes some have none. For batches of more than one
    frame add ``batch_sampler=dict(type='SceneStreamBatchSampler')`` to the dataloader.

    Args:
        dataset: gives ``scenes()``.
        seed: ignored, there is nothing random; MMEngine passes it.
    """

    def __init__(self, dataset: NuScenesTemporalDataset, seed: int | None = None) -> None:
        rank, world_size = get_dist_info()
        self.scenes = balance_scenes(dataset.scenes(), world_size)[rank]

    def __iter__(self) -> Iterator[int]:
        return (index for scene in self.scenes for index in scene)

    def __len__(self) -> int:
        return sum(map(len, self.scenes))


@DATA_SAMPLERS.register_module()
class SceneStreamBatchSampler(Sampler):
    """Steps through ``batch_size`` scenes at once: a batch holds the next frame of each.

    Position b belongs to stream b, which takes the next waiting scene when its own has ended; when none waits it is
    left out and batches are smaller. So no batch holds two frames of one scene, and none is dropped or repeated.

    Args:
        sampler: whose scenes to step through.
        batch_size: scenes at once.

    Raises:
        InputError: if ``batch_size`` is below 1.
    """

    def __init__(self, sampler: SceneStreamSampler, batch_size: int) -> None:
        if batch_size < 1:
            raise InputError(f'batch_size must be at least 1, not {batch_size}')
        self.sampler = sampler
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[int]]:
        waiting = deque(deque(scene) for scene in self.sampler.scenes)
        streams = [deque()] * self.batch_size
        while True:
            streams = [stream or (waiting.popleft() if waiting else stream) for stream in streams]
            batch = [stream.popleft() for stream in streams if stream]
            if not batch:
                return
            yield batch

    def __len__(self) -> int:
        return sum(1 for _ in self)


def balance_scenes(scenes: list[list[int]], parts: int) -> list[list[list[int]]]:
    """Distribute scenes over parts so that their frame counts are near each other.

    Args:
        scenes: indices of each scene's frames.
        parts: how many.

    Returns:
        Per part its scenes, in the given order; parts may be empty.
    """
    loads, owners = [0] * parts, {}
    for number in sorted(range(len(scenes)), key=lambda number: -len(scenes[number])):
        owners[number] = loads.index(min(loads))
        loads[owners[number]] += len(scenes[number])
    return [[scene for number, scene in enumerate(scenes) if owners[number] == part] for part in range(parts)]
