"""The detector: camera images in, 3-D boxes out, one frame after another."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmdet3d.models.detectors import Base3DDetector
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.handed_down import with_handed_down
from bevformer_plugin.models.activation_checkpointing import checkpoint_activations
from bevformer_plugin.models.bev.camera_features import CameraFeatures, samples_by_image_size
from bevformer_plugin.models.bev.frame_metas import require_usable_frames
from bevformer_plugin.models.bev.frames import BEVHistory, histories_after
from bevformer_plugin.models.grid_mask import GridMask
from bevformer_plugin.ops import configure_attention_backend


@MODELS.register_module()
class BEVFormer(Base3DDetector):
    """BEVFormer (Li et al., arXiv 2203.17270).

    Grid, range and number of cameras are set here, once, and handed down. The state between frames is one
    :class:`BEVHistory` per sample that goes in and comes out of :meth:`stream_step`; :meth:`predict` keeps those of
    the last batch's scenes.

    Args:
        img_backbone: config of the image backbone.
        img_neck: config of the neck; its ``num_outs`` is the number of levels, its ``out_channels`` the head's width.
        pts_bbox_head: config of the head, without what the detector hands down.
        bev_grid: (bev_h, bev_w) cells.
        point_cloud_range: (x, y, z) minima, then maxima, LiDAR frame, metres.
        num_cameras: camera views of a frame.
        data_preprocessor: config of the preprocessor.
        grid_mask: arguments of :class:`GridMask`; None trains without.
        ego_motion: see :meth:`EgoAlignment.from_config`.
        use_history: False treats every frame alone (BEVFormer-S).
        perspective_supervision: config of :class:`PerspectiveSupervision`, a training aid; None trains without, as v1.
        max_time_gap: seconds after which a previous frame is too old to count; the published code has no such limit.
        attention_backend: of :data:`bevformer_plugin.ops.BACKENDS`, for all deformable attentions of this process;
            None chooses by device and type.
        activation_checkpointing: of 'img_backbone' and 'encoder' those whose stages or layers are computed again in
            the backward pass instead of being kept in memory.
        train_cfg: None, as ``mmdet3d.apis.init_model`` hands to every detector; nothing is configured by it here.

    Raises:
        InputError: if neck and head have different widths, the head sets what the detector hands down, grid, range
            or max_time_gap are not usable, there is no such attention_backend, or activation_checkpointing names
            another part, or train_cfg is not None.
    """

    def __init__(
        self,
        img_backbone: dict,
        img_neck: dict,
        pts_bbox_head: dict,
        bev_grid: tuple[int, int],
        point_cloud_range: tuple[float, ...],
        num_cameras: int,
        data_preprocessor: dict | None = None,
        grid_mask: dict | None = None,
        ego_motion: dict | None = None,
        use_history: bool = True,
        max_time_gap: float = 2.0,
        perspective_supervision: dict | None = None,
        attention_backend: str | None = None,
        activation_checkpointing: tuple[str, ...] = (),
        train_cfg: None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        if train_cfg is not None:
            raise InputError(
                f'model.train_cfg={train_cfg!r} has no effect: pts_bbox_head.criterion configures how BEVFormer trains'
            )
        configure_attention_backend(attention_backend)
        handed_down = {
            'grid': BEVGrid(*bev_grid, tuple(point_cloud_range)),
            'num_cameras': num_cameras,
            'num_levels': img_neck['num_outs'],
            'ego_motion': ego_motion,
        }
        if not max_time_gap > 0:
            raise InputError(
                f'max_time_gap is seconds above 0, got {max_time_gap}: to go without history set use_history=False'
            )
        self.num_cameras = num_cameras
        self.use_history = use_history
        self.max_time_gap = max_time_gap
        self.img_backbone = MODELS.build(img_backbone)
        self.img_neck = MODELS.build(img_neck)
        self.pts_bbox_head = MODELS.build(
            with_handed_down(pts_bbox_head, handed_down, 'pts_bbox_head', 'the detector')
        )
        if img_neck['out_channels'] != self.pts_bbox_head.embed_dims:
            raise InputError(
                f'img_neck.out_channels={img_neck["out_channels"]} differs from '
                f'pts_bbox_head.embed_dims={self.pts_bbox_head.embed_dims}'
            )
        self.perspective_supervision = None
        if perspective_supervision is not None:
            of_supervision = {
                'embed_dims': self.pts_bbox_head.embed_dims,
                'num_classes': self.pts_bbox_head.num_classes,
            }
            self.perspective_supervision = MODELS.build(
                with_handed_down(perspective_supervision, of_supervision, 'perspective_supervision', 'pts_bbox_head')
            )
        self.grid_mask = None if grid_mask is None else GridMask(**grid_mask)
        self.streams: dict[str, BEVHistory] = {}
        self.said: set[str] = set()  # why history was not used
        stages = self.stages()
        for part in activation_checkpointing:
            if part not in stages:
                raise InputError(f'activation_checkpointing takes of {sorted(stages)}, got {part!r}')
            if not stages[part]:
                raise InputError(
                    f'activation_checkpointing of {part} has no effect: a {type(self.img_backbone).__name__} has no '
                    'stages (children of type nn.Sequential) to checkpoint; leave it out'
                )
            for stage in stages[part]:
                checkpoint_activations(stage)

    def stages(self) -> dict[str, list[nn.Module]]:
        """What runs one after the other: the backbone's stages, the encoder's layers."""
        return {
            'img_backbone': [stage for stage in self.img_backbone.children() if isinstance(stage, nn.Sequential)],
            'encoder': list(self.pts_bbox_head.transformer.encoder.layers),
        }

    def train(self, mode: bool = True) -> 'BEVFormer':
        """Switch mode and forget all streams: weights are about to change, or have."""
        self.reset_streams()
        return super().train(mode)

    def reset_streams(self) -> None:
        """Forget the previous frames of all scenes."""
        self.streams = {}

    def extract_feat(self, imgs: Tensor) -> list[Tensor]:
        """Camera features: (B, N, 3, H, W) to a list over levels of (B, N, C, h, w)."""
        if self.grid_mask is not None:
            imgs = self.grid_mask(imgs)
        return [level.unflatten(0, imgs.shape[:2]) for level in self.image_features(imgs.flatten(0, 1))]

    def image_features(self, imgs: Tensor) -> list[Tensor]:
        """Backbone and neck: (I, 3, H, W) images to a list over levels of (I, C, h, w).

        Raises:
            InputError: if the backbone's outputs are not what the neck was built for.
        """
        stages = self.img_backbone(imgs)
        given, expected = [stage.shape[1] for stage in stages], list(self.img_neck.in_channels)
        if given != expected:
            raise InputError(f'img_backbone gives stages with {given} channels, img_neck.in_channels is {expected}')
        return self.img_neck(stages)

    def encode_frame(
        self, features: list[Tensor], image_hw: tuple[int, int], metas: list[dict], histories: list[BEVHistory | None]
    ) -> Tensor:
        """Build the BEV of one frame per sample from features of images of one size.

        Args:
            features: per level (B, N, C, h, w), see :meth:`extract_feat`.
            image_hw: padded image size in pixels.
            metas: per sample the frame's meta, see :func:`require_usable_frames`.
            histories: per sample the state after its previous frame, or None. A state of another scene is ignored; one
                of a later time or older than ``max_time_gap`` as well, which is said once.

        Returns:
            (B, Q, C).
        """
        counting = [self._counting(history, meta) for history, meta in zip(histories, metas, strict=True)]
        return self.pts_bbox_head.encode(features, image_hw, metas, counting)

    def _counting(self, history: BEVHistory | None, meta: dict) -> BEVHistory | None:
        """The history if it is used for the frame of ``meta``."""
        gap = None if history is None or not self.use_history else history.seconds_to(meta)
        if gap is None:
            return None
        if 0 < gap <= self.max_time_gap:
            return history
        if gap > 0:
            problem = f'farther apart than max_time_gap={self.max_time_gap:g} s'
            remedy = 'set model.max_time_gap for slower frames, or model.use_history=False to treat every frame alone'
        else:
            problem = 'not in the order of their timestamps'
            remedy = 'give them in that order, and call reset_streams() before a scene begins again'
        if problem not in self.said:
            self.said.add(problem)
            print_log(
                f'frames of scene {meta["scene_token"]} are {problem}: sample {meta.get("sample_idx")} is {gap:g} s '
                'after the one before, whose BEV is therefore not used as history, here and wherever it is so; '
                + remedy,
                logger='current',
                level=logging.WARNING,
            )
        return None

    def encode_batch(
        self, imgs: Tensor, metas: list[dict], histories: list[BEVHistory | None]
    ) -> tuple[Tensor, list[CameraFeatures]]:
        """Camera features and BEV of one frame per sample, each at its own size of images.

        Args:
            imgs: (B, N, 3, H, W) normalised and padded to the largest of the batch.
            metas: as in :meth:`encode_frame`, and ``pad_shape`` where a sample's own images are smaller.
            histories: as in :meth:`encode_frame`.

        Returns:
            (B, Q, C), and the features by size of images.

        Raises:
            InputError: if images or calibrations are not those of ``num_cameras`` cameras, a meta is not usable, or
                sizes differ where processes must run the same number of forward passes.
        """
        if imgs.shape[1] != self.num_cameras:
            raise InputError(
                f'the model was built for num_cameras={self.num_cameras}, got images of {imgs.shape[1]} cameras'
            )
        require_usable_frames(metas, self.num_cameras)
        sizes = samples_by_image_size(metas, tuple(imgs.shape[-2:]))
        if len(sizes) > 1 and self.training:
            self._require_independent_passes(sizes)
        bevs, features = [], []
        for (height, width), samples in sizes.items():
            own = imgs if len(sizes) == 1 else imgs[samples]
            levels = self.extract_feat(own[..., :height, :width])
            own_metas, own_histories = ([values[index] for index in samples] for values in (metas, histories))
            bevs.append(self.encode_frame(levels, (height, width), own_metas, own_histories))
            features.append(CameraFeatures(samples, levels, (height, width)))
        if len(bevs) == 1:
            return bevs[0], features
        order = [index for part in features for index in part.samples]
        return torch.cat(bevs)[torch.tensor(order).argsort().to(imgs.device)], features

    def _require_independent_passes(self, sizes: dict[tuple[int, int], list[int]]) -> None:
        """Raise an InputError where the processes exchange something in every forward pass of the backbone."""
        if any(isinstance(module, (nn.SyncBatchNorm, FSDPModule)) for module in self.modules()):
            raise InputError(
                f'images of a training batch differ in size, {sorted(sizes)}, which sharded models and SyncBN cannot '
                'train on: set image_size of the dataset, or batch_size=1'
            )

    def stream_step(
        self, imgs: Tensor, metas: list[dict], histories: list[BEVHistory | None]
    ) -> tuple[dict[str, Tensor | list[CameraFeatures]], list[BEVHistory | None]]:
        """One frame per sample.

        Args:
            imgs: as in :meth:`encode_batch`.
            metas: as in :meth:`encode_batch`.
            histories: as in :meth:`encode_frame`.

        Returns:
            The head's raw outputs, with the camera ``features``, and the state after this frame, per sample; None
            where the BEV is not finite, see :func:`histories_after`.

        Raises:
            InputError: as :meth:`encode_batch`.
        """
        bev_embed, features = self.encode_batch(imgs, metas, histories)
        outputs = {**self.pts_bbox_head.decode(bev_embed), 'features': features}
        return outputs, histories_after(bev_embed, metas)

    def loss(self, batch_inputs_dict: dict, batch_data_samples: list[Det3DDataSample]) -> dict[str, Tensor]:
        """Losses on the current frames.

        Args:
            batch_inputs_dict: ``imgs`` (B, T, N, 3, H, W), frames aligned at the end.
            batch_data_samples: with ``gt_instances_3d`` and the metas of the queue.
        """
        outputs = self._forward(batch_inputs_dict, batch_data_samples)
        instances = [sample.gt_instances_3d for sample in batch_data_samples]
        losses = self.pts_bbox_head.loss(outputs, instances)
        if self.perspective_supervision is not None:
            lidar2img = torch.stack([torch.as_tensor(sample.metainfo['lidar2img']) for sample in batch_data_samples])
            losses.update(
                self.perspective_supervision.loss(
                    outputs['features'],
                    lidar2img.to(batch_inputs_dict['imgs'].device, torch.float32),
                    [boxes.bboxes_3d for boxes in instances],
                    [boxes.labels_3d for boxes in instances],
                )
            )
        return losses

    @torch.no_grad()
    def predict(self, batch_inputs_dict: dict, batch_data_samples: list[Det3DDataSample]) -> list[Det3DDataSample]:
        """Detect in one frame per sample, continuing each sample's scene where the last batch left it.

        Returns:
            The data samples with ``pred_instances_3d``.

        Raises:
            InputError: for queues of several frames, or two frames of one scene in a batch.
        """
        imgs = batch_inputs_dict['imgs']
        metas = [sample.metainfo for sample in batch_data_samples]
        scenes = [meta.get('scene_token') for meta in metas]  # a meta without one is refused below
        if imgs.shape[1] != 1:
            raise InputError(
                f'predict streams frame by frame but got queues of {imgs.shape[1]} frames; build the '
                'dataset with test_mode=True'
            )
        if len(set(scenes)) != len(scenes):
            raise InputError(
                f'a batch holds two frames of one scene ({scenes}); the later one needs the BEV of the '
                'earlier: use batch_size=1 or a sampler that steps through different scenes'
            )
        outputs, states = self.stream_step(imgs[:, 0], metas, [self.streams.get(scene) for scene in scenes])
        self.streams = {scene: state for scene, state in zip(scenes, states, strict=True) if state is not None}
        return self.add_pred_to_datasample(batch_data_samples, self.pts_bbox_head.predict(outputs))

    def _forward(self, batch_inputs_dict: dict, batch_data_samples: list[Det3DDataSample]) -> dict[str, Tensor]:
        """The head's raw outputs for the current frames, after running through their queues; arguments as in loss."""
        imgs = batch_inputs_dict['imgs']
        queues = [[*sample.metainfo.get('history', []), sample.metainfo] for sample in batch_data_samples]
        histories = self._run_history(imgs, queues)
        bev_embed, features = self.encode_batch(imgs[:, -1], [queue[-1] for queue in queues], histories)
        return {**self.pts_bbox_head.decode(bev_embed), 'features': features}

    def _run_history(self, imgs: Tensor, queues: list[list[dict]]) -> list[BEVHistory | None]:
        """Stream through all frames but the last, without gradient and in eval mode (paper section 3.5).

        Args:
            imgs: (B, T, N, 3, H, W), frames aligned at the end.
            queues: per sample the metas of its frames, oldest first.

        Returns:
            Per sample the state before its current frame.
        """
        histories: list[BEVHistory | None] = [None] * len(queues)
        if not self.use_history:
            return histories
        length = imgs.shape[1]
        with torch.no_grad(), _eval_mode(self):
            for step in range(length - 1):
                present = [b for b, queue in enumerate(queues) if len(queue) >= length - step]
                if not present:
                    continue
                metas = [queues[b][step - length] for b in present]
                bev_embed, _ = self.encode_batch(imgs[present, step], metas, [histories[b] for b in present])
                for b, history in zip(present, histories_after(bev_embed, metas), strict=True):
                    histories[b] = history
        return histories


@contextmanager
def _eval_mode(module: torch.nn.Module) -> Iterator[None]:
    """Put a module and all its parts into eval mode; restore each part's own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
