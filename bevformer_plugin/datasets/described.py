"""The interface of datasets that training, testing and evaluation rely on."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class DescribedDataset(Protocol):
    """A dataset with a length and a description of its data, as MMEngine's datasets and their wrappers have them."""

    @property
    def metainfo(self) -> dict:
        """Names of the classes, and for multi-camera data of the cameras, with what else describes all samples."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, idx: int, /) -> object: ...


def read_in_full(dataset: DescribedDataset) -> None:
    """Let a dataset that reads its files late, such as MMEngine's with ``lazy_init``, read them now."""
    full_init = getattr(dataset, 'full_init', None)
    if full_init is not None:
        full_init()
