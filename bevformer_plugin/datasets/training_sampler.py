"""Samplers for training: shuffled, the same from any point on, and items that do not depend on who loads them."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch
from mmdet3d.registry import DATA_SAMPLERS
from mmengine.dataset import DefaultSampler
from torch.utils.data import Dataset


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


def derived_seed(*numbers: int) -> int:
    """A seed that is a function of all the numbers and unlike those of other numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch (CPU); afterwards they go on where they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
