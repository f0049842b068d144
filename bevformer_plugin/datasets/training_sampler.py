"""A sampler for training whose order and items are the same in a run that is resumed, with any number of workers."""

from collections.abc import Iterator, Sized
from itertools import islice

from mmdet3d.registry import DATA_SAMPLERS
from mmengine.dataset import DefaultSampler

from bevformer_plugin.seeding import derived_seed


class SeededIndex(int):
    """An index of a dataset, together with the seed of everything random about its item.

    The seed travels to the worker that loads the item, so that the item depends neither on the worker nor on what was
    loaded before.
    """

    seed: int

    def __new__(cls, index: int, seed: int) -> 'SeededIndex':
        seeded = super().__new__(cls, index)
        seeded.seed = seed
        return seeded

    def __reduce__(self) -> tuple:
        return SeededIndex, (int(self), self.seed)


@DATA_SAMPLERS.register_module()
class ResumableSampler(DefaultSampler):
    """Draws as MMEngine's ``DefaultSampler``, gives :class:`SeededIndex` and can go on in the middle of an epoch.

    Args:
        dataset: whose items are drawn.
        shuffle: draw the items of each epoch in a random order.
        seed: of the order and, together with epoch and index, of everything random about an item; None draws one.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        super().__init__(dataset, shuffle=shuffle, seed=seed)
        self.resumed_epoch, self.resumed_at = 0, 0

    def go_on(self, epoch: int, drawn: int) -> None:
        """Leave out the first ``drawn`` indices of this process in ``epoch``; later epochs are drawn in full."""
        self.resumed_epoch, self.resumed_at = epoch, drawn
        self.set_epoch(epoch)

    def __iter__(self) -> Iterator[SeededIndex]:
        epoch = self.epoch
        drawn = self.resumed_at if epoch == self.resumed_epoch else 0
        return (
            SeededIndex(index, derived_seed(self.seed, epoch, index))
            for index in islice(super().__iter__(), drawn, None)
        )
