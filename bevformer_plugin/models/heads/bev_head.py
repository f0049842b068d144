"""The interface that a detector expects of each of its heads."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor

from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.models.bev import EncodedFrames, ProposalLimits


class BEVHead(BaseModule):
    """A task on the BEV or on the camera features below it, which is an entry of the detector's ``heads``.

    Args:
        embed_dims: channels C of the BEV and of the camera features; the detector sets it.
        grid: the BEV grid; the detector sets it.
    """

    # The fields of a data sample that the head's predictions fill; no two heads of a detector fill the same.
    predicts: ClassVar[tuple[str, ...]] = ()

    def __init__(self, embed_dims: int, grid: BEVGrid) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.grid = grid

    @property
    def proposal_limits(self) -> ProposalLimits | None:
        """Which proposals of the perspective head this head starts from; None if from none."""
        return None

    @abstractmethod
    def loss(self, encoded: EncodedFrames, samples: Sequence[Det3DDataSample]) -> dict[str, Tensor]:
        """Compute losses by name; no other head of the detector may use the same names.

        Args:
            encoded: the current frames of a batch.
            samples: their data samples, with what is true of them.
        """

    @abstractmethod
    def predict(self, encoded: EncodedFrames) -> Mapping[str, Sequence[BaseDataElement]]:
        """Predict one value for each sample and each field of ``predicts``."""
