"""Poses and frames of the files of the published BEVFormerV2."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmdet3d.registry import MODELS
from mmengine.registry import DefaultScope
from scipy.spatial.transform import Rotation

from bevformer_plugin.configuration import load_config
from bevformer_plugin.models import Frame, PerspectiveHead
from bevformer_plugin.weights import to_ours
from tests.helpers.reference_files import published_weights, v2_manifest, v2_rig
from tests.helpers.repository import CONFIGS


def pose(rotation: np.ndarray | torch.Tensor, translation: np.ndarray | torch.Tensor) -> np.ndarray:
    """(4, 4) float64 of a quaternion (w, x, y, z) and a translation in metres."""
    w, x, y, z = (float(value) for value in rotation)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat([x, y, z, w]).as_matrix()
    matrix[:3, 3] = np.asarray(translation)
    return matrix


@dataclass(frozen=True)
class Drive:
    """The frames of one file.

    Attributes:
        config: name of the config, such as ``t2``.
        content: arrays of the file.
        offsets: positions of the frames that the model fuses.
        present: those of the frames that there are.
    """

    config: str
    content: np.lib.npyio.NpzFile
    offsets: list[int]
    present: list[int]

    @classmethod
    def of_file(cls, path: Path) -> 'Drive':
        """Reads ``bevformerv2_NAME.KIND.npz``."""
        content = np.load(path)
        offsets = content['frames'].tolist()
        present = content['present'].tolist() if 'present' in content else offsets
        return cls(path.name.removeprefix('bevformerv2_').partition('.')[0], content, offsets, present)

    def row(self, name: str, offset: int) -> np.ndarray:
        """The row of an array, with one for each frame or for each that is present, that belongs to an offset."""
        rows = self.content[name]
        return rows[(self.offsets if len(rows) == len(self.offsets) else self.present).index(offset)]

    def images(self, offset: int) -> torch.Tensor:
        """(6, 3, H, W) images of a frame as the network sees them."""
        height, width = self.content['image_shape'].tolist()
        return torch.from_numpy(v2_rig().images(int(self.content['seed']), offset, height, width))

    def meta(self, offset: int) -> dict:
        """Meta of a frame whose calibration is in the current LiDAR frame already, as the network saw it."""
        still = np.eye(4)
        return dict(
            sample_idx=f'frame {offset}',
            lidar2img=self.row('lidar2img', offset),
            ego2global=still,
            lidar2ego=still,
            timestamp=0.5 * offset,
            scene_token='rig',
            frame_idx=100 + offset,
        )

    def unaligned(self, offset: int) -> Frame:
        """A frame with its own pose and calibration."""
        meta = {
            **self.meta(offset),
            'lidar2img': self.content['cam2img'] @ self.row('lidar2cam', offset),
            'lidar2ego': pose(self.content['lidar2ego_rotation'], self.content['lidar2ego_translation']),
            'ego2global': pose(self.row('ego2global_rotation', offset), self.row('ego2global_translation', offset)),
        }
        return Frame.from_meta(meta, len(meta['lidar2img']))

    def model(self, perspective: bool, groups: int | None = None) -> torch.nn.Module:
        """The config's detector with the published weights, for the file's frames, BEV grid and groups of queries."""
        cfg = load_config(str(CONFIGS.parent / 'bevformer_v2' / f'{self.config}_24e.py')).model
        shapes = v2_manifest(f'bevformerv2_{self.config}')
        height, width = self.content['bev_shape'].tolist()
        cfg.frame_offsets, cfg.bev_grid = self.offsets, (height, width)
        shapes['pts_bbox_head.bev_embedding.weight'][0] = height * width
        for axis, cells in (('row', height), ('col', width)):
            shapes[f'pts_bbox_head.positional_encoding.{axis}_embed.weight'][0] = cells
        queries = cfg.heads.detection.queries
        if groups is not None:
            queries.num_groups = groups
            shapes['pts_bbox_head.query_embedding.weight'][0] = groups * queries.num_query
        if perspective:
            shapes.update(v2_manifest('fcos3d_bbox_head'))
        else:
            cfg.heads.perspective = None
        with DefaultScope.overwrite_default_scope('mmdet3d'):
            detector = MODELS.build(cfg)
        detector.load_state_dict(with_published_starts(to_ours(published_weights(shapes)), detector.state_dict()))
        return detector


class PublishedSmoothL1(torch.nn.Module):
    """Smooth L1 as the published head has it: not divided by beta below beta, so that it jumps there.

    Args:
        weight: of the loss.
        beta: where the square ends.
    """

    def __init__(self, weight: float, beta: float = 0.05) -> None:
        super().__init__()
        self.weight = weight
        self.beta = beta

    def forward(self, values, targets, weight, avg_factor):
        difference = (values - targets).abs()
        loss = torch.where(difference < self.beta, 0.5 * difference**2, difference - 0.5 * self.beta) * self.weight
        return (loss * weight).sum() / avg_factor


class PublishedGIoU(torch.nn.Module):
    """GIoU loss as the published head has it: one square pixel is added to intersection and union."""

    def forward(self, boxes, targets, weight, avg_factor):
        overlap = torch.minimum(boxes[:, 2:], targets[:, 2:]) - torch.maximum(boxes[:, :2], targets[:, :2])
        intersection = overlap.clamp(min=0).prod(1)
        union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (targets[:, 2:] - targets[:, :2]).prod(1) - intersection
        hull = torch.maximum(boxes[:, 2:], targets[:, 2:]) - torch.minimum(boxes[:, :2], targets[:, :2])
        giou = (intersection + 1) / (union + 1) - (hull.prod(1) - union) / hull.prod(1)
        return ((1 - giou) * weight).sum() / avg_factor


class PublishedAttributes(torch.nn.Module):
    """Cross entropy as the published head has it: all objects with an attribute weigh alike."""

    def forward(self, logits, labels, weight, avg_factor):
        known = weight > 0
        loss = torch.nn.functional.cross_entropy(logits[known], labels[known])
        return 0.2 * loss * weight.sum() / avg_factor


def with_published_losses(head: PerspectiveHead) -> PerspectiveHead:
    """Gives a perspective head the losses of the published code where ours have a defect less."""
    head.loss_corners, head.loss_speed = PublishedSmoothL1(2.0), PublishedSmoothL1(0.2)
    head.loss_box2d, head.loss_attribute = PublishedGIoU(), PublishedAttributes()
    return head


def with_published_starts(weights: dict, own: dict) -> dict:
    """Puts into filled weights of the perspective head, in our names, what the files keep at its start."""
    kept = ('.scales_', '.offsets_depth.', '_per_level')
    started = {name: own[name] if any(part in name for part in kept) else value for name, value in weights.items()}
    for name in started:
        if name.endswith('box2d.box2d_reg.bias'):
            started[name] = started[name] + 2
    return started
