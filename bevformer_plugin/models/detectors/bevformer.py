"""The detector: camera images in, what every head predicts out, one frame after another."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from mmdet3d.models.detectors import Base3DDetector
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.model import ModuleDict
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.handed_down import with_handed_down
from bevformer_plugin.layers import PillarHits
from bevformer_plugin.models.activation_checkpointing import checkpoint_activations
from bevformer_plugin.models.bev import (
    AnyHistory,
    BEVHistory,
    CameraFeatures,
    EncodedFrames,
    Frame,
    Proposals,
    in_batch_order,
    samples_by_image_size,
    usable_history,
)
from bevformer_plugin.models.grid_mask import GridMask
from bevformer_plugin.models.heads import BEVHead, PerspectiveHead

from .proposing_head import find_proposing_head


@MODELS.register_module()
class BEVFormer(Base3DDetector):
    """BEVFormer (Li et al., arXiv 2203.17270).

    Grid, range and number of cameras are set here, once, and handed down; so is the width, which the neck sets. The
    state between frames is one :class:`BEVHistory` per sample that goes into :meth:`encode` and comes out of what it
    returns; :meth:`predict` keeps those of the last batch's scenes.

    Args:
        img_backbone: config of the image backbone.
        img_neck: config of the neck; its ``num_outs`` is the number of levels, its ``out_channels`` the width C of
            BEV and heads.
        bev_encoder: config of :class:`BEVEncoder`, without what the detector hands down.
        heads: configs of the tasks by name, each a :class:`BEVHead` without what the detector hands down; at least
            one. None in the place of a config leaves that head out.
        bev_grid: (bev_h, bev_w) cells.
        point_cloud_range: (x, y, z) minima, then maxima, LiDAR frame, metres.
        num_cameras: camera views of a frame.
        data_preprocessor: config of the preprocessor.
        grid_mask: arguments of :class:`GridMask`; None trains without.
        ego_motion: see :meth:`EgoAlignment.from_config`.
        use_history: False treats every frame alone (BEVFormer-S).
        max_time_gap: seconds after which a previous frame is too old to count; the published code has no such limit.
        activation_checkpointing: any of 'img_backbone', 'encoder': recompute their stages in the backward pass to
            save memory.
        train_cfg: None, as ``mmdet3d.apis.init_model`` hands to every detector; nothing is configured by it here.

    Raises:
        InputError: if there are no heads, two fill the same field of a data sample, one starts from proposals that
            none makes, a part sets what the detector hands down, grid, range or max_time_gap are not usable,
            activation_checkpointing names another part, or train_cfg is not None.
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
        data_preprocessor: dict | None = None,
        grid_mask: dict | None = None,
        ego_motion: dict | None = None,
        use_history: bool = True,
        max_time_gap: float = 2.0,
        activation_checkpointing: tuple[str, ...] = (),
        train_cfg: None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        if train_cfg is not None:
            raise InputError(
                f'model.train_cfg={train_cfg!r} has no effect: each of model.heads configures how it is trained'
            )
        if not max_time_gap > 0:
            raise InputError(
                f'max_time_gap is seconds above 0, got {max_time_gap}: to go without history set use_history=False'
            )
        _require_configs(heads)
        self.num_cameras = num_cameras
        self.num_levels = img_neck['num_outs']
        self.use_history = use_history
        self.max_time_gap = max_time_gap
        self.grid_mask = None if grid_mask is None else GridMask(**grid_mask)
        self.img_backbone = MODELS.build(img_backbone)
        self.img_neck = MODELS.build(img_neck)
        of_heads = {
            'embed_dims': img_neck['out_channels'],
            'grid': BEVGrid(*bev_grid, tuple(point_cloud_range)),
        }
        of_encoder = {
            **of_heads,
            'num_cameras': num_cameras,
            'num_levels': img_neck['num_outs'],
            'ego_motion': ego_motion,
        }
        self.bev_encoder = MODELS.build(with_handed_down(bev_encoder, of_encoder, 'bev_encoder', 'the detector'))
        self.heads = ModuleDict(
            {
                name: MODELS.build(with_handed_down(head, of_heads, f'heads.{name}', 'the detector'))
                for name, head in heads.items()
                if head is not None
            }
        )
        _require_distinct_predictions(self.heads)
        self.proposing_head = find_proposing_head(self.heads)
        self.streams: dict[str, BEVHistory] = {}
        self.warned_of: set[str] = set()  # reasons why history was not used
        self._checkpoint_activations(activation_checkpointing)

    def _checkpoint_activations(self, parts: Sequence[str]) -> None:
        """Recompute the stages of the parts in the backward pass."""
        stages = self.stages()
        for part in parts:
            if part not in stages:
                raise InputError(f'activation_checkpointing takes any of {sorted(stages)}, got {part!r}')
            if not stages[part]:
                raise InputError(
                    f'activation_checkpointing of {part} has no effect: a {type(self.img_backbone).__name__} has no '
                    'stages (children of type nn.Sequential) to checkpoint; leave it out'
                )
            for stage in stages[part]:
                checkpoint_activations(stage)

    def stages(self) -> dict[str, list[nn.Module]]:
        """List the modules that run one after the other: the backbone's stages and the encoder's layers."""
        return {
            'img_backbone': [stage for stage in self.img_backbone.children() if isinstance(stage, nn.Sequential)],
            'encoder': list(self.bev_encoder.encoder.layers),
        }

    @property
    def pts_bbox_head(self) -> nn.Module:
        """The head that detects objects, by the name that MMDetection3D's multi-view detectors give theirs.

        Raises:
            InputError: if the detector has none.
        """
        if 'detection' not in self.heads:
            raise InputError(f'the detector has no head named detection; its heads are {", ".join(self.heads)}')
        return self.heads['detection']

    def _named_heads(self) -> Iterator[tuple[str, BEVHead]]:
        for name, head in self.heads.items():
            assert isinstance(head, BEVHead)  # the constructor has checked it
            yield name, head

    def train(self, mode: bool = True) -> 'BEVFormer':
        """Switch mode and forget all streams: weights are about to change, or have."""
        self.reset_streams()
        return super().train(mode)

    def reset_streams(self) -> None:
        """Forget the previous frames of all scenes."""
        self.streams = {}

    def extract_feat(self, imgs: Tensor) -> list[Tensor]:
        """Compute camera features, from (B, N, 3, H, W) images to a list over levels of (B, N, C, h, w).

        Raises:
            InputError: if the backbone's outputs are not what the neck was built for.
        """
        if self.grid_mask is not None:
            imgs = self.grid_mask(imgs)
        stages = self.img_backbone(imgs.flatten(0, 1))
        given, expected = [stage.shape[1] for stage in stages], list(self.img_neck.in_channels)
        if given != expected:
            raise InputError(f'img_backbone gives stages with {given} channels, img_neck.in_channels is {expected}')
        return [level.unflatten(0, imgs.shape[:2]) for level in self.img_neck(stages)]

    def frames_of(self, metas: Sequence[dict]) -> list[Frame]:
        """Read the frames of a batch from the metainfo of its data samples; see :meth:`Frame.from_meta`."""
        return [Frame.from_meta(meta, self.num_cameras) for meta in metas]

    def encode(
        self,
        imgs: Tensor,
        frames: Sequence[Frame],
        histories: Sequence[BEVHistory | None],
        hits: PillarHits | None = None,
    ) -> EncodedFrames:
        """Compute camera features and BEV of one frame of every sample, each at its own size of images.

        Args:
            imgs: (B, N, 3, H, W) normalised and padded to the largest of the batch.
            frames: per sample.
            histories: per sample the state after its previous frame, or None. A state of another scene is ignored; one
                of a later time or older than ``max_time_gap`` as well, which is said once.
            hits: what :meth:`BEVEncoder.hits` gives for these frames, where it is known already, as for cameras that
                stay where they are; only for images of one size.

        Raises:
            InputError: if images are not those of ``num_cameras`` cameras, hits come with images of several sizes,
                sizes differ where processes must run the same number of forward passes, or a frame's true boxes were
                moved as in BEV augmentation.
        """
        moved = [frame.name for frame in frames if frame.bev_augmentation is not None]
        if moved:
            raise InputError(
                f'the true boxes of sample {moved[0]} were moved by RandomBEVAugmentation, and a BEVFormer does not '
                'move its BEV with them: leave it out of the pipeline, or take BEVFormerV2'
            )
        used = [self._used(history, frame) for history, frame in zip(histories, frames, strict=True)]
        features = self.camera_features(imgs, frames)
        if len(features) > 1 and hits is not None:
            sizes = [part.image_hw for part in features]
            raise InputError(f'images of a batch differ in size, {sizes}, and hits are of one size: leave them out')
        bevs = [
            self.bev_encoder(
                part, [frames[index] for index in part.samples], [used[index] for index in part.samples], hits
            )
            for part in features
        ]
        return EncodedFrames(
            in_batch_order(bevs, features), features, list(frames), proposals=self._proposals(features, frames)
        )

    def _proposals(self, features: Sequence[CameraFeatures], frames: Sequence[Frame]) -> list[Proposals] | None:
        """Let the perspective head propose objects if another head starts from them, in eval mode; else None."""
        if self.proposing_head is None:
            return None
        name, limits = self.proposing_head
        head = self.heads[name]
        assert isinstance(head, PerspectiveHead)
        with evaluating(head):
            return head.propose(features, frames, limits)

    def camera_features(self, imgs: Tensor, frames: Sequence[Frame]) -> list[CameraFeatures]:
        """Compute the camera features of one frame of every sample, each at its own size of images.

        Args:
            imgs: (B, N, 3, H, W) normalised and padded to the largest of the batch.
            frames: per sample.

        Returns:
            One entry for each size.

        Raises:
            InputError: as :meth:`encode`.
        """
        if imgs.shape[1] != self.num_cameras:
            raise InputError(
                f'the model was built for num_cameras={self.num_cameras}, got images of {imgs.shape[1]} cameras'
            )
        sizes = samples_by_image_size(frames, (imgs.shape[-2], imgs.shape[-1]))
        if len(sizes) > 1 and self.training:
            self._require_independent_passes(sizes)
        features = []
        for (height, width), samples in sizes.items():
            own = imgs if len(sizes) == 1 else imgs[samples]
            features.append(CameraFeatures(samples, self.extract_feat(own[..., :height, :width]), (height, width)))
        return features

    def _used(self, history: AnyHistory | None, frame: Frame) -> AnyHistory | None:
        """Return the history if it counts for this frame, else None, and log each reason once."""
        return usable_history(history, frame, self.max_time_gap, self.warned_of) if self.use_history else None

    def _require_independent_passes(self, sizes: dict[tuple[int, int], list[int]]) -> None:
        """Raise an InputError where the processes exchange something in every forward pass of the backbone."""
        if any(isinstance(module, (nn.SyncBatchNorm, FSDPModule)) for module in self.modules()):
            raise InputError(
                f'images of a training batch differ in size, {sorted(sizes)}, which sharded models and SyncBN cannot '
                'train on: set image_size of the dataset and leave RandomResizeMultiView out, or batch_size=1, or (of '
                "SyncBN) norm_cfg.type='BN' of model.img_backbone and every other part that has it"
            )

    def loss(self, batch_inputs_dict: dict, batch_data_samples: list[Det3DDataSample]) -> dict[str, Tensor]:
        """Compute the losses of all heads on the current frames.

        Args:
            batch_inputs_dict: ``imgs`` (B, T, N, 3, H, W), frames aligned at the end.
            batch_data_samples: with ``gt_instances_3d`` and the metas of the queue.

        Raises:
            InputError: if two heads give a loss the same name.
        """
        encoded = self._encode_queues(batch_inputs_dict, batch_data_samples)
        losses: dict[str, Tensor] = {}
        for name, head in self._named_heads():
            of_head = head.loss(encoded, batch_data_samples)
            unsummed = [loss for loss in of_head if 'loss' not in loss]
            if unsummed:
                raise InputError(
                    f'heads.{name} gives {", ".join(unsummed)}, which would not be trained on: MMEngine sums what has '
                    '"loss" in its name'
                )
            repeated = sorted(losses.keys() & of_head.keys())
            if repeated:
                raise InputError(f'heads.{name} and a head before it both have a loss named {", ".join(repeated)}')
            losses.update(of_head)
        return losses

    @torch.no_grad()
    def predict(self, batch_inputs_dict: dict, batch_data_samples: list[Det3DDataSample]) -> list[Det3DDataSample]:
        """Run all heads on one frame per sample, continuing each sample's scene where the last batch left it.

        Returns:
            The data samples with every head's predictions, such as ``pred_instances_3d``.

        Raises:
            InputError: for queues of several frames, or two frames of one scene in a batch.
        """
        imgs = batch_inputs_dict['imgs']
        if imgs.shape[1] != 1:
            raise InputError(
                f'predict streams frame by frame but got queues of {imgs.shape[1]} frames; build the '
                'dataset with test_mode=True'
            )
        frames = self.frames_of([sample.metainfo for sample in batch_data_samples])
        scenes = [frame.scene for frame in frames]
        if len(set(scenes)) != len(scenes):
            raise InputError(
                f'a batch holds two frames of one scene ({scenes}); the later one needs the BEV of the '
                'earlier: use batch_size=1 or a sampler that steps through different scenes'
            )
        encoded = self.encode(imgs[:, 0], frames, [self.streams.get(scene) for scene in scenes])
        for name, head in self._named_heads():
            of_head = head.predict(encoded)
            if set(of_head) != set(head.predicts):
                raise InputError(
                    f'heads.{name} predicts {sorted(of_head)}, and its class says predicts={head.predicts}: name the '
                    'same fields in both'
                )
            for field, predictions in of_head.items():
                for sample, prediction in zip(batch_data_samples, predictions, strict=True):
                    setattr(sample, field, prediction)
        # After the heads, because this waits until the GPU has computed the BEV.
        histories = zip(scenes, encoded.histories(), strict=True)
        self.streams = {scene: history for scene, history in histories if history is not None}
        for sample in batch_data_samples:
            sample.pred_instances = InstanceData()  # boxes in images, which MMDetection3D's evaluators look for
        return batch_data_samples

    def _forward(self, batch_inputs_dict: dict, batch_data_samples: list[Det3DDataSample]) -> EncodedFrames:
        """Encode the current frames, which is MMEngine's mode 'tensor'; arguments as in :meth:`loss`."""
        return self._encode_queues(batch_inputs_dict, batch_data_samples)

    def _encode_queues(self, batch_inputs_dict: dict, batch_data_samples: list[Det3DDataSample]) -> EncodedFrames:
        """Stream through the queues and encode their current frames; arguments as in :meth:`loss`."""
        imgs = batch_inputs_dict['imgs']
        queues = [
            self.frames_of([*meta.get('history', []), meta]) for meta in (s.metainfo for s in batch_data_samples)
        ]
        return self.encode(imgs[:, -1], [queue[-1] for queue in queues], self._run_history(imgs, queues))

    def _run_history(self, imgs: Tensor, queues: list[list[Frame]]) -> list[BEVHistory | None]:
        """Stream through all frames but the last, without gradient and in eval mode (paper section 3.5).

        Args:
            imgs: (B, T, N, 3, H, W), frames aligned at the end.
            queues: per sample its frames, oldest first.

        Returns:
            Per sample the state before its current frame.
        """
        histories: list[BEVHistory | None] = [None] * len(queues)
        if not self.use_history:
            return histories
        length = imgs.shape[1]
        with evaluating(self):
            for step in range(length - 1):
                present = [index for index, queue in enumerate(queues) if len(queue) >= length - step]
                if not present:
                    continue
                frames = [queues[index][step - length] for index in present]
                before = [histories[index] for index in present]
                for index, state in zip(present, self._states_after(imgs[present, step], frames, before), strict=True):
                    histories[index] = state
        return histories

    def _states_after(
        self, imgs: Tensor, frames: Sequence[Frame], histories: Sequence[BEVHistory | None]
    ) -> Sequence[BEVHistory | None]:
        """Compute what one frame of every sample leaves behind; arguments as in :meth:`encode`."""
        return self.encode(imgs, frames, histories).histories()


def _require_configs(heads: Mapping[str, dict | None]) -> None:
    """Raise an InputError for entries that are no configs of a head."""
    if not isinstance(heads, dict):
        raise InputError(f'model.heads is a dict of configs by name, got {heads!r}')
    for name, head in heads.items():
        if not isinstance(name, str) or not name.isidentifier() or hasattr(ModuleDict, name):
            raise InputError(f'a head of model.heads cannot be named {name!r}: take another word, such as detection')
        if head is not None and (not isinstance(head, dict) or 'type' not in head):
            raise InputError(
                f'model.heads.{name} is the config of a head with its type, or None, got {head!r}; '
                f'the heads are {", ".join(map(str, heads))}'
            )


def _require_distinct_predictions(heads: ModuleDict) -> None:
    """Raise an InputError if there are no heads, or two of them fill the same field of a data sample."""
    if not heads:
        raise InputError(
            "model.heads is empty: give at least one, such as heads=dict(detection=dict(type='DetectionHead'))"
        )
    head_of: dict[str, str] = {}
    for name, head in heads.items():
        if not isinstance(head, BEVHead):
            raise InputError(f'model.heads.{name} is a {type(head).__name__}, which is no BEVHead')
        if isinstance(head.predicts, str):
            raise InputError(f'predicts of {type(head).__name__} is a tuple of fields, got {head.predicts!r}')
        for field in head.predicts:
            if field in head_of:
                raise InputError(f'model.heads.{head_of[field]} and {name} both predict {field}: keep one of them')
            head_of[field] = name


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Run a module and all its parts in eval mode and without gradient; restore each part's own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    for part, _ in modes:
        part.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode
        # Autocast keeps the weights that it has cast. Older versions of torch hand them, which know no gradient, to
        # the pass that trains (pytorch issue 105211).
        torch.clear_autocast_cache()
