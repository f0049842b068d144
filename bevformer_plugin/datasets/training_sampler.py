"""A sampler for training whose order and items are the same in a run that is resumed, with any number of workers."""

from collections.abc import Iterator, Sized
from itertools import islice

from mmdet3d.registry import DATA_SAMPLERS, DATASETS
from mmengine.dataset import DefaultSampler
from torch.utils.data import Dataset

from bevformer_plugin.seeding import derived_seed, seeded_generators

from .described import DescribedDataset, read_in_full


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


@DATASETS.register_module()
class SeededItems(Dataset):
    """Gives the items of a dataset, such as one that repeats or joins others, and seeds everything random about them.

    Wrappers of datasets hand a plain index on, without the seed of a :class:`SeededIndex`. The random numbers would
    then be those of the worker, which begins every epoch with the same ones and knows of no run that is resumed.

    Args:
        dataset: the dataset, or its config.
    """

    def __init__(self, dataset: DescribedDataset | dict) -> None:
        built = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        assert isinstance(built, DescribedDataset)
        self.dataset = built

    @property
    def metainfo(self) -> dict:
        """The description of the dataset."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Let the dataset read its files if it has not yet."""
        read_in_full(self.dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> object:
        """Return an item; everything random about it follows from the seed if the index is a :class:`SeededIndex`."""
        if not isinstance(idx, SeededIndex):
            return self.dataset[idx]
        with seeded_generators(idx.seed):
            return self.dataset[int(idx)]


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
