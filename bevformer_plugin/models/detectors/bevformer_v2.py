"""The detector of BEVFormer v2: the BEVs of several frames are built side by side and fused."""

from collections.abc import Sequence

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from bevformer_plugin.errors import InputError
from bevformer_plugin.frame_offsets import checked_offsets
from bevformer_plugin.geometry import BEVGrid, transform_bev
from bevformer_plugin.handed_down import with_handed_down
from bevformer_plugin.models.bev import (
    CameraFeatures,
    EncodedParallelFrames,
    FeatureHistory,
    Frame,
    KeptFrame,
    in_batch_order,
    left_behind,
    next_position,
)

from .bevformer import BEVFormer, evaluating


@MODELS.register_module()
class BEVFormerV2(BEVFormer):
    """BEVFormer v2 (Yang et al., arXiv 2211.10439), as its code was published.

    Nothing is recurrent. The BEV of every frame is built without history, from camera features and from a calibration
    that is brought into the LiDAR frame of the *current* frame; all of them are then fused into one. A frame's BEV is
    thus another one for each later frame, while its camera features stay the same: they are what a frame leaves
    behind.

    A frame that is missing, as at the start of a scene, counts as equal to the nearest newer one. History is built
    without gradient and in eval mode.

    Args:
        img_backbone: as of :class:`BEVFormer`.
        img_neck: as of :class:`BEVFormer`.
        bev_encoder: as of :class:`BEVFormer`; published with ``motion_embedding=False``.
        heads: as of :class:`BEVFormer`.
        bev_grid: as of :class:`BEVFormer`.
        point_cloud_range: as of :class:`BEVFormer`.
        num_cameras: as of :class:`BEVFormer`.
        frame_offsets: positions of the frames that are fused, in keyframes from the current one, rising; the last is
            0.
        bev_fusion: config of :class:`BEVFusion`, without what the detector hands down; None for a single frame.
        data_preprocessor: as of :class:`BEVFormer`.
        grid_mask: as of :class:`BEVFormer`.
        max_time_gap: seconds between two frames of a scene after which the earlier ones are too old to count.
        activation_checkpointing: as of :class:`BEVFormer`.
        train_cfg: as of :class:`BEVFormer`.

    Raises:
        InputError: if ``frame_offsets`` do not rise to 0, there is a fusion of one frame or none of several, or for
            the reasons of :class:`BEVFormer`.
    """

    def __init__(
        self,
        img_backbone: dict,
        img_neck: dict,
        bev_encoder: dict,
        heads: dict[str, dict],
        bev_grid: tuple[int, int],
        point_cloud_range: tuple[float, ...],
        num_cameras: int,
        frame_offsets: Sequence[int],
        bev_fusion: dict | None = None,
        data_preprocessor: dict | None = None,
        grid_mask: dict | None = None,
        max_time_gap: float = 2.0,
        activation_checkpointing: tuple[str, ...] = (),
        train_cfg: None = None,
    ) -> None:
        offsets = checked_offsets(frame_offsets)
        if (bev_fusion is None) != (len(offsets) == 1):
            raise InputError(
                f'model.frame_offsets={list(offsets)} and model.bev_fusion={bev_fusion!r} do not fit each other: '
                'several frames need a fusion, a single one has nothing to fuse'
            )
        super().__init__(
            img_backbone=img_backbone,
            img_neck=img_neck,
            bev_encoder=bev_encoder,
            heads=heads,
            bev_grid=bev_grid,
            point_cloud_range=point_cloud_range,
            num_cameras=num_cameras,
            data_preprocessor=data_preprocessor,
            grid_mask=grid_mask,
            use_history=len(offsets) > 1,
            max_time_gap=max_time_gap,
            activation_checkpointing=activation_checkpointing,
            train_cfg=train_cfg,
        )
        self.frame_offsets = offsets
        of_fusion = {
            'num_frames': len(offsets),
            'embed_dims': img_neck['out_channels'],
            'grid': BEVGrid(*bev_grid, tuple(point_cloud_range)),
        }
        self.bev_fusion = (
            None
            if bev_fusion is None
            else MODELS.build(with_handed_down(bev_fusion, of_fusion, 'bev_fusion', 'the detector'))
        )

    def encode(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, imgs: Tensor, frames: Sequence[Frame], histories: Sequence[FeatureHistory | None]
    ) -> EncodedParallelFrames:
        """Compute camera features of one frame of every sample, the BEVs of all its frames, and the fused BEV.

        Args:
            imgs: (B, N, 3, H, W) normalised and padded to the largest of the batch.
            frames: per sample, with ``lidar2ego`` where several frames are fused.
            histories: per sample the state after its previous frame, or None; see :meth:`BEVFormer.encode`.

        Raises:
            InputError: as :meth:`BEVFormer.encode`.
        """
        used = [self._used(history, frame) for history, frame in zip(histories, frames, strict=True)]
        # The history comes first, as the norms of the current frame's pass may update their statistics.
        past = self._past_bevs(frames, used)
        features = self.camera_features(imgs, frames)
        bevs = [
            self.bev_encoder(part, [frames[index] for index in part.samples], [None] * len(part.samples))
            for part in features
        ]
        current = self._augmented(in_batch_order(bevs, features), frames)
        return EncodedParallelFrames(
            bev_embed=current if self.bev_fusion is None else self.bev_fusion(self._filled(past, current)),
            camera_features=features,
            frames=list(frames),
            left_behind=left_behind(features, frames, used, self._reach()),
            proposals=self._proposals(features, frames),
        )

    def _reach(self) -> int:
        """Tell how many positions back the oldest frame lies."""
        return -self.frame_offsets[0]

    def _states_after(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, imgs: Tensor, frames: Sequence[Frame], histories: Sequence[FeatureHistory | None]
    ) -> Sequence[FeatureHistory | None]:
        """Compute what one frame of every sample leaves behind, without a BEV; arguments as in :meth:`encode`."""
        used = [self._used(history, frame) for history, frame in zip(histories, frames, strict=True)]
        return left_behind(self.camera_features(imgs, frames), frames, used, self._reach())

    def _past_bevs(
        self, frames: Sequence[Frame], histories: Sequence[FeatureHistory | None]
    ) -> dict[tuple[int, int], Tensor]:
        """Build the BEVs (Q, C) of the frames before, by their sample and offset; missing frames have none."""
        past: dict[tuple[int, int], Tensor] = {}
        with evaluating(self.bev_encoder):
            for offset in self.frame_offsets[:-1]:
                kept: dict[int, KeptFrame] = {}
                for sample, (frame, history) in enumerate(zip(frames, histories, strict=True)):
                    found = None if history is None else history.at(next_position(history, frame) + offset)
                    if found is not None:
                        kept[sample] = found
                for size in {entry.image_hw for entry in kept.values()}:
                    samples = [sample for sample, entry in kept.items() if entry.image_hw == size]
                    levels = [torch.stack(level) for level in zip(*(kept[s].levels for s in samples), strict=True)]
                    seen = [kept[sample].frame.seen_from(frames[sample]) for sample in samples]
                    bevs = self.bev_encoder(CameraFeatures(samples, levels, size), seen, [None] * len(samples))
                    bevs = self._augmented(bevs, [frames[sample] for sample in samples])
                    past.update({(sample, offset): bev for sample, bev in zip(samples, bevs, strict=True)})
        return past

    def _augmented(self, bevs: Tensor, frames: Sequence[Frame]) -> Tensor:
        """Move (b, Q, C) BEVs as the true boxes of their current frames were moved."""
        if all(frame.bev_augmentation is None for frame in frames):
            return bevs
        still = torch.eye(2, dtype=torch.float64)
        matrices = [still if frame.bev_augmentation is None else frame.bev_augmentation for frame in frames]
        return transform_bev(bevs, torch.stack(matrices), self.bev_encoder.grid)

    def _filled(self, past: dict[tuple[int, int], Tensor], current: Tensor) -> list[Tensor]:
        """Put the BEVs of all frames in order, K times (B, Q, C); a missing one is the nearest newer one, detached."""
        slots = [current]
        for offset in reversed(self.frame_offsets[:-1]):
            newer = slots[0].detach()
            bevs = [past.get((sample, offset), newer[sample]) for sample in range(len(newer))]
            slots.insert(0, torch.stack(bevs))
        return slots
