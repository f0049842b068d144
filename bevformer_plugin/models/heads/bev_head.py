"""The interface that a detector expects of each of its heads."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.models.bev import EncodedFrames, Frame, ProposalLimits


def true_objects(samples: Sequence[Det3DDataSample]) -> list[InstanceData]:
    """Return ``gt_instances_3d`` of every sample, which has ``bboxes_3d`` and ``labels_3d``.

    Raises:
        InputError: if a sample has none.
    """
    for sample in samples:
        if 'gt_instances_3d' not in sample:
            raise InputError(
                f'sample {sample.metainfo.get("sample_idx")} has no gt_instances_3d to train on: put '
                "dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True) into the pipeline"
            )
    return [sample.gt_instances_3d for sample in samples]


def require_unmoved(frames: Sequence[Frame], what: str) -> None:
    """Refuse frames whose BEV and true boxes were moved, for a head whose truth was not.

    Args:
        frames: per sample.
        what: is not moved, for the message.

    Raises:
        InputError: naming the first such sample.
    """
    moved = [frame.name for frame in frames if frame.bev_augmentation is not None]
    if moved:
        raise InputError(
            f'BEV and true boxes of sample {moved[0]} were moved by RandomBEVAugmentation, and {what} not with them: '
            'leave it out of the pipeline, or leave this head out'
        )


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
