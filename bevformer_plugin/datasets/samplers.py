"""Samplers for testing frame by frame, which give whole scenes in time order."""

from collections import deque
from collections.abc import Iterator

from mmdet3d.registry import DATA_SAMPLERS
from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from bevformer_plugin.errors import InputError

from .temporal_dataset import NuScenesTemporalDataset


@DATA_SAMPLERS.register_module()
class SceneStreamSampler(Sampler):
    """Gives each process whole scenes, one after another, with their frames in time order.

    Scenes go, longest first, to the process with the fewest frames so far. Every frame of the dataset is drawn
    exactly once over all processes; if there are more processes than scenes, some processes have no frames. For
    batches of more than one frame add ``batch_sampler=dict(type='SceneStreamBatchSampler')`` to the dataloader.

    Args:
        dataset: whose frames are drawn, scene by scene.
        seed: has no effect, because nothing is random; MMEngine passes it to every sampler.
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
    """Steps through ``batch_size`` scenes at once; a batch holds the next frame of each of them.

    Position b of a batch belongs to stream b, which takes the next waiting scene when its own has ended. When no scene
    waits, the stream is left out and batches are smaller. So no batch holds two frames of one scene, and no frame is
    dropped or repeated.

    Args:
        sampler: gives the scenes.
        batch_size: how many scenes to step through at once.

    Raises:
        InputError: ``batch_size`` is below 1.
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
    """Distribute scenes over parts so that all parts have about the same number of frames.

    Args:
        scenes: indices of each scene's frames.
        parts: number of parts.

    Returns:
        The scenes of each part, in the given order; a part may be empty.
    """
    loads = [0] * parts
    owners: dict[int, int] = {}
    for number in sorted(range(len(scenes)), key=lambda number: -len(scenes[number])):
        owners[number] = loads.index(min(loads))
        loads[owners[number]] += len(scenes[number])
    return [[scene for number, scene in enumerate(scenes) if owners[number] == part] for part in range(parts)]
