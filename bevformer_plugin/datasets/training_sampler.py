"""Samplers for training: shuffled, the same from any point on, and items that do not depend on who loads them."""

from collections.abc import Iterator
from itertools import islice

from mmdet3d.registry import DATA_SAMPLERS
from mmengine.dataset import DefaultSampler
from torch.utils.data import Dataset

from bevformer_plugin.seeding import derived_seed


class SeededIndex(int):
    """An index that takes along the seed of all that is random about its item.

    It travels to the worker that loads the item, so that the item depends neither on the worker nor on what was
    loaded before.
    """

    def __new__(cls, index: int, seed: int) -> 'SeededIndex':
        seeded = super().__new__(cls, index)
        seeded.seed = seed
        return seeded

    def __reduce__(self) -> tuple:
        return SeededIndex, (int(self), self.seed)


@DATA_SAMPLERS.register_module()
class ResumableSampler(DefaultSampler):
    """MMEngine's ``DefaultSampler`` that gives :class:`SeededIndex` and can go on in the middle of an epoch.

    Args:
        dataset: as there.
        shuffle: as there.
        seed: as there; also of the items, together with epoch and index.
    """

    def __init__(self, dataset: Dataset, shuffle: bool = True, seed: int | None = None) -> None:
        super().__init__(dataset, shuffle=shuffle, seed=seed)
        self.resumed_epoch, self.resumed_at = 0, 0

    def go_on(self, epoch: int, drawn: int) -> None:
        """Leave out the first ``drawn`` indices of this process in ``epoch``; later epochs are whole."""
        self.resumed_epoch, self.resumed_at = epoch, drawn
        self.set_epoch(epoch)

    def __iter__(self) -> Iterator[SeededIndex]:
        epoch = self.epoch
        drawn = self.resumed_at if epoch == self.resumed_epoch else 0
        return (
            SeededIndex(index, derived_seed(self.seed, epoch, index))
            for index in islice(super().__iter__(), drawn, None)
        )
