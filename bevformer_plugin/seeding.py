"""Seeds, and the global random number generators that decide everything random in data and training."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*numbers: int) -> int:
    """Derive one seed from all the numbers; any other numbers give an unrelated seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch (CPU) for a block, and restore their state after it."""
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
