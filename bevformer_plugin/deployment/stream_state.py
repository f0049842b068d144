"""What the frames of a stream leave behind for the next one, and whether it is of the model that goes on from it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bevformer_plugin.errors import InputError
from bevformer_plugin.layers import PillarHits
from bevformer_plugin.models import BEVHistory, FeatureHistory, Frame


@dataclass(frozen=True, eq=False)
class CameraView:
    """The pillars that the cameras of a rig see, to be computed again only when the calibration changes.

    Attributes:
        lidar2img: (N, 4, 4) projections into the model's images.
        image_hw: padded size of these images.
        hits: the pillars that each camera sees.
    """

    lidar2img: Tensor
    image_hw: tuple[int, int]
    hits: PillarHits

    def holds_for(self, frame: Frame, image_hw: tuple[int, int]) -> bool:
        """Tell whether a frame's cameras are exactly these."""
        return self.image_hw == image_hw and torch.equal(self.lidar2img, frame.lidar2img)


@dataclass(frozen=True, eq=False)
class StreamState:
    """What the frames of a stream leave behind for the next one; it goes in and comes out explicitly.

    Attributes:
        history: the BEV of the last frame with its pose and time, or of a BEVFormerV2 the camera features of the last
            keyframes; None before the first frame, and where the vehicle's pose is not known.
        view: of the last frame's cameras; None of a BEVFormerV2.
    """

    history: BEVHistory | FeatureHistory | None = None
    view: CameraView | None = None


def require_bev(history: BEVHistory | FeatureHistory | None, cells: int, channels: int) -> BEVHistory | None:
    """Return the history of a model with a recurrent BEV of this size, None where a stream begins.

    Raises:
        InputError: if another model left it behind.
    """
    if history is None:
        return None
    own = f'one of {cells} cells of {channels}'
    if not isinstance(history, BEVHistory):
        raise _of_another_model('the camera features of a BEVFormerV2', f'a BEV, {own} channels')
    found = tuple(history.bev_embed.shape)
    if found != (cells, channels):
        raise _of_another_model(f'a BEV of {found[0]} cells of {found[1]} channels', own)
    return history


def require_features(
    history: BEVHistory | FeatureHistory | None, levels: int, cameras: int, channels: int
) -> FeatureHistory | None:
    """Return the history of a model that keeps camera features of this size, None where a stream begins.

    Raises:
        InputError: if another model left it behind.
    """
    if history is None:
        return None
    if not isinstance(history, FeatureHistory):
        raise _of_another_model('the BEV of a BEVFormer', 'camera features')
    own = [(cameras, channels)] * levels
    for kept in history.kept:
        found = [(level.shape[0], level.shape[1]) for level in kept.levels]
        if found != own:
            raise _of_another_model(f'features of cameras and channels {found} by level', f'features of {own}')
    return history


def _of_another_model(found: str, own: str) -> InputError:
    return InputError(
        f'the state is that of another model: it holds {found}, this model leaves {own} behind; begin with state=None'
    )
