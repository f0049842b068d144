"""The perspective head of BEVFormer v2: 3-D detection in every camera's own view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from mmdet.models.task_modules import MlvlPointGenerator
from mmdet.utils import reduce_mean
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.nn import functional as F

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.models.bev import CameraFeatures, EncodedFrames, Frame, ProposalLimits, Proposals

from .bev_head import BEVHead
from .camera_boxes import CameraBoxes
from .camera_branches import Branches2D, Branches3D, predictor
from .camera_proposals import at_all_locations, propose
from .camera_targets import CameraInstances, LocationTargets, assign_locations

CORNER_VALUES = 24  # x, y and z of a box's eight corners
NUM_ATTRIBUTES = 3  # of each family: moving, parked or standing, stopped or sitting


@dataclass(frozen=True)
class Locations:
    """What the head predicts at every location of images of one size, and what is true there.

    Attributes:
        logits: (A, num_classes) of all locations.
        values: predictions at the P locations with an object, by name; those of a class are the true class's.
        targets: of all locations.
        points: (P, 2) the locations with an object, pixels.
        true_boxes: (P,) the boxes of their objects.
        attributes: (P,) of their objects.
        speeds: (P,) of their objects.
        has_objects: False if no image has an object; such images are not trained on.
    """

    logits: Tensor
    values: dict[str, Tensor]
    targets: LocationTargets
    points: Tensor
    true_boxes: CameraBoxes
    attributes: Tensor
    speeds: Tensor
    has_objects: bool


@MODELS.register_module()
class PerspectiveHead(BEVHead):
    """Detects 3-D objects in each camera view, to teach backbone and neck (BEVFormer v2, section 3.2).

    It learns what the published head learns (DD3D, arXiv 2108.06417): FCOS's class, 2-D box and centerness, and for
    the true class a rotation relative to the viewing ray, the projected centre, a depth, a size and a confidence,
    which are judged by the corners of the box that each of them alone changes; beside them an attribute and a speed.
    Objects are ``gt_camera_instances`` of the data samples, see :class:`LoadCameraInstances`.

    Images without objects are left out, as published: neither their background nor their statistics count.

    It is used in training alone, unless another head starts from what it finds (:class:`PerspectiveProposals`).

    :class:`PerspectiveSupervision`, the small aid of BEVFormer-nano, is another head.

    Args:
        num_classes: object classes.
        strides: of the levels, pixels.
        largest_sides: for each level the largest distance in pixels from a location to a side of its 2-D box.
        mean_depths: of the objects of each level, metres.
        std_depths: their spreads, metres.
        canonical_sizes: by class its usual width, length and height in metres.
        norm_cfg: config of the norms; each level has its own.
        loss_cls: config of mmdet's focal loss.
        loss_box2d: config of mmdet's loss of 2-D boxes.
        loss_centerness: config of mmdet's cross entropy.
        loss_corners: config of mmdet's smooth L1 loss, for corners in metres.
        loss_confidence: config of mmdet's cross entropy.
        loss_attribute: config of mmdet's cross entropy.
        loss_speed: config of mmdet's smooth L1 loss.
        embed_dims: channels C of the features; the detector sets it.
        grid: the BEV grid, which every head is given; the detector sets it.
        num_convs: layers of each tower.
        center_radius: in strides, how far from the centre of a 2-D box locations are trained on it.
        depth_range: smallest and largest depth that is predicted, metres.

    Raises:
        InputError: if settings that are per level or per class differ in number, or features are not of ``strides``.
    """

    def __init__(
        self,
        num_classes: int,
        strides: Sequence[int],
        largest_sides: Sequence[float],
        mean_depths: Sequence[float],
        std_depths: Sequence[float],
        canonical_sizes: Sequence[Sequence[float]],
        norm_cfg: dict,
        loss_cls: dict,
        loss_box2d: dict,
        loss_centerness: dict,
        loss_corners: dict,
        loss_confidence: dict,
        loss_attribute: dict,
        loss_speed: dict,
        embed_dims: int,
        grid: BEVGrid,
        num_convs: int = 4,
        center_radius: float = 1.5,
        depth_range: tuple[float, float] = (0.1, 80.0),
    ) -> None:
        super().__init__(embed_dims, grid)
        per_level = {'largest_sides': largest_sides, 'mean_depths': mean_depths, 'std_depths': std_depths}
        for name, values in per_level.items():
            if len(values) != len(strides):
                raise InputError(f'{name} has {len(values)} values for {len(strides)} levels, one for each of strides')
        if len(canonical_sizes) != num_classes or any(len(size) != 3 for size in canonical_sizes):
            raise InputError(
                f'canonical_sizes takes width, length and height of each of the {num_classes} classes, got '
                f'{canonical_sizes}'
            )
        self.num_classes = num_classes
        self.strides = tuple(strides)
        self.largest_sides = tuple(largest_sides)
        self.center_radius = center_radius
        self.depth_range = depth_range[0], depth_range[1]
        self.canonical_sizes = tuple(tuple(size) for size in canonical_sizes)
        self.box2d = Branches2D(num_classes, embed_dims, strides, num_convs, norm_cfg)
        self.box3d = Branches3D(num_classes, embed_dims, strides, mean_depths, std_depths, num_convs, norm_cfg)
        self.attr_logits = predictor(embed_dims, NUM_ATTRIBUTES)
        self.speed = predictor(embed_dims, 1)
        self.points = MlvlPointGenerator(list(strides), offset=0)
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_box2d = MODELS.build(loss_box2d)
        self.loss_centerness = MODELS.build(loss_centerness)
        self.loss_corners = MODELS.build(loss_corners)
        self.loss_confidence = MODELS.build(loss_confidence)
        self.loss_attribute = MODELS.build(loss_attribute)
        self.loss_speed = MODELS.build(loss_speed)

    def predict(self, encoded: EncodedFrames) -> Mapping[str, Sequence[BaseDataElement]]:
        """Predict nothing: what the head finds is a beginning for other heads at most, see :meth:`propose`."""
        return {}

    @torch.no_grad()
    def propose(
        self, features: Sequence[CameraFeatures], frames: Sequence[Frame], limits: ProposalLimits
    ) -> list[Proposals]:
        """Find objects in the LiDAR frame that another head starts from, per sample.

        Call it in eval mode, where samples do not depend on each other by the statistics of norms.

        Args:
            features: of all samples, one entry for each size of images.
            frames: per sample.
            limits: which of the objects are proposed.

        Raises:
            InputError: if a camera's ``lidar2img`` is no projection.
        """
        of_sample: dict[int, Proposals] = {}
        for part in features:
            self._require_strides(part)
            rows = at_all_locations(self([level.flatten(0, 1) for level in part.levels]))
            sizes: list[tuple[int, ...]] = [tuple(level.shape[-2:]) for level in part.levels]
            device, cameras = rows['cls'].device, part.levels[0].shape[1]
            points = torch.cat(self.points.grid_priors(sizes, device=device))
            canonical_sizes = torch.tensor(self.canonical_sizes, device=device)
            with torch.autocast(device.type, enabled=False):  # projection needs float32
                for place, sample in enumerate(part.samples):
                    own = {name: values[place * cameras : (place + 1) * cameras] for name, values in rows.items()}
                    of_sample[sample] = propose(
                        own, points, frames[sample], canonical_sizes, self.depth_range, self.grid, limits
                    )
        return [of_sample[sample] for sample in range(len(frames))]

    def loss(self, encoded: EncodedFrames, samples: Sequence[Det3DDataSample]) -> dict[str, Tensor]:
        """Compute losses against ``gt_camera_instances`` of every sample, with names that end in ``_mono``.

        Raises:
            InputError: if a sample has no ``gt_camera_instances``.
        """
        parts = []
        for features in encoded.camera_features:
            self._require_strides(features)
            parts.append(self.locations(features.levels, *self._instances(features, samples)))
        with torch.autocast(encoded.bev_embed.device.type, enabled=False):  # projection needs float32
            return {f'{name}_mono': loss for name, loss in self.losses(parts).items()}

    def forward(self, levels: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Predict maps (n, channels, h, w) by name for each level of (n, C, h, w) features."""
        maps = []
        for level, features in enumerate(levels):
            of_boxes, tower = self.box2d(features, level)
            attribute, speed = self.attr_logits(tower), F.relu(self.speed(tower))
            maps.append({**of_boxes, **self.box3d(features, level), 'attribute': attribute, 'speed': speed})
        return maps

    def _require_strides(self, features: CameraFeatures) -> None:
        """Refuse features whose levels are not of the configured strides.

        Raises:
            InputError: with both.
        """
        sizes = [(level.shape[-2], level.shape[-1]) for level in features.levels]
        fits = len(sizes) == len(self.strides) and all(
            abs(length * stride - of_image) < stride
            for stride, size in zip(self.strides, sizes, strict=True)
            for length, of_image in zip(size, features.image_hw, strict=True)
        )
        if not fits:
            raise InputError(
                f'strides of the perspective head are {list(self.strides)}, and the neck gives levels of {sizes} for '
                f'images of {features.image_hw}: give one stride for each of them, and the other settings of levels '
                'with it'
            )

    def _instances(
        self, features: CameraFeatures, samples: Sequence[Det3DDataSample]
    ) -> tuple[CameraInstances, Tensor]:
        """Collect the objects in the images of one size, and the (n, 3, 3) intrinsics of these images."""
        device, cameras = features.levels[0].device, features.levels[0].shape[1]
        columns: dict[str, list[Tensor]] = {field: [] for field in CameraInstances.__dataclass_fields__}
        intrinsics = []
        for place, index in enumerate(features.samples):
            sample = samples[index]
            if 'gt_camera_instances' not in sample or 'camera_intrinsics' not in sample.metainfo:
                raise InputError(
                    f'sample {sample.metainfo.get("sample_idx")} has no gt_camera_instances, on which PerspectiveHead '
                    'is trained: put LoadCameraInstances into the training pipeline'
                )
            given = sample.get('gt_camera_instances')
            columns['images'].append(given.get('cameras').to(device) + place * cameras)
            for field in ('labels', 'boxes2d', 'boxes3d', 'attributes', 'speeds'):
                columns[field].append(given.get(field).to(device))
            intrinsics.append(torch.as_tensor(sample.metainfo['camera_intrinsics'], dtype=torch.float32))
        instances = CameraInstances(**{field: torch.cat(parts) for field, parts in columns.items()})
        return instances, torch.cat(intrinsics).to(device)

    def locations(self, levels: Sequence[Tensor], instances: CameraInstances, intrinsics: Tensor) -> Locations:
        """Predict and find targets for images of one size.

        Args:
            levels: per level (b, N, C, h, w) or (n, C, h, w).
            instances: the objects in the n = b * N images.
            intrinsics: (n, 3, 3).
        """
        instances, shown = _with_objects(instances)
        flat, intrinsics = [level.flatten(0, -4)[shown] for level in levels], intrinsics[shown]
        maps = self(flat)
        sizes: list[tuple[int, ...]] = [tuple(level.shape[-2:]) for level in flat]
        points = self.points.grid_priors(sizes, device=flat[0].device)
        images = len(flat[0])
        targets = assign_locations(
            points, images, instances, self.strides, self.largest_sides, self.center_radius, self.num_classes
        )
        chosen, objects = targets.positives, targets.objects
        rows = {name: torch.cat([_rows(level[name]) for level in maps]).float() for name in maps[0]}
        labels = targets.labels[chosen]
        values = {name: self._of_class(row[chosen], labels, name) for name, row in rows.items() if name != 'cls'}
        places = torch.cat([level.repeat(images, 1) for level in points])[chosen]
        of_image = intrinsics[instances.images[objects]]
        with torch.autocast(of_image.device.type, enabled=False):  # projection needs float32
            true_boxes = CameraBoxes.from_metric(instances.boxes3d[objects].float(), of_image)
        return Locations(
            logits=rows['cls'],
            values={**values, 'intrinsics': of_image},
            targets=targets,
            points=places,
            true_boxes=true_boxes,
            attributes=instances.attributes[objects],
            speeds=instances.speeds[objects].float(),
            has_objects=len(instances.labels) > 0,
        )

    def _of_class(self, rows: Tensor, labels: Tensor, name: str) -> Tensor:
        """Take the true class's values of what is predicted for every class, (P, k * num_classes) to (P, k)."""
        if name not in ('quat', 'ctr', 'depth', 'size', 'conf'):
            return rows
        return rows.unflatten(1, (-1, self.num_classes))[torch.arange(len(rows), device=rows.device), :, labels]

    def predicted_boxes(self, part: Locations) -> CameraBoxes:
        """Decode the boxes at the locations with an object."""
        values = part.values
        labels = part.targets.labels[part.targets.positives]
        return CameraBoxes.from_predictions(
            values['quat'],
            values['ctr'] + part.points,
            values['depth'][:, 0],
            values['size'],
            values['size'].new_tensor(self.canonical_sizes)[labels],
            values['intrinsics'],
            self.depth_range,
        )

    def losses(self, parts: Sequence[Locations]) -> dict[str, Tensor]:
        """Compute all losses, each divided by what it sums over in the whole batch and all processes."""
        centerness = [part.targets.centerness() for part in parts]
        of_attributes = [
            central * (part.attributes < NUM_ATTRIBUTES) for central, part in zip(centerness, parts, strict=True)
        ]
        of_speeds = [central * part.speeds.isfinite() for central, part in zip(centerness, parts, strict=True)]
        positives = max(_divisor([torch.ones_like(values) for values in centerness]), 1.0)
        weight, attribute_weight, speed_weight = map(_divisor, (centerness, of_attributes, of_speeds))
        sums: dict[str, list[Tensor]] = {}
        for index, part in enumerate(parts):
            of_part = self._losses_2d(part, centerness[index], positives, weight)
            of_part |= self._losses_3d(part, centerness[index], weight)
            of_part['loss_attr'] = self.loss_attribute(
                part.values['attribute'],
                torch.where(part.attributes < NUM_ATTRIBUTES, part.attributes, 0),
                weight=of_attributes[index],
                avg_factor=attribute_weight,
            )
            of_part['loss_speed'] = self.loss_speed(
                part.values['speed'][:, 0],
                part.speeds.nan_to_num(),
                weight=of_speeds[index],
                avg_factor=speed_weight,
            )
            for name, loss in of_part.items():
                sums.setdefault(name, []).append(loss)
        return {name: torch.stack(losses).sum() for name, losses in sums.items()}

    def _losses_2d(self, part: Locations, central: Tensor, positives: float, weight: float) -> dict[str, Tensor]:
        """Compute the losses of class, 2-D box and centerness."""
        one_hot = F.one_hot(part.targets.labels, self.num_classes + 1)[:, : self.num_classes].to(part.logits)
        predicted, true = (_corners_2d(part.points, s) for s in (part.values['box2d'], part.targets.sides))
        return {
            'loss_cls': self.loss_cls(part.logits, one_hot, avg_factor=positives) * part.has_objects,
            'loss_box2d_reg': self.loss_box2d(predicted, true, weight=central, avg_factor=weight),
            'loss_centerness': self.loss_centerness(part.values['centerness'][:, 0], central, avg_factor=positives),
        }

    def _losses_3d(self, part: Locations, central: Tensor, weight: float) -> dict[str, Tensor]:
        """Compute the loss of each part of the 3-D boxes, by the corners of the true box with that part predicted."""
        boxes, true = self.predicted_boxes(part), part.true_boxes
        corners = true.corners()  # Px8x3
        shares = (central / CORNER_VALUES)[:, None, None].expand_as(corners)
        losses = {
            f'loss_box3d_{name}': self.loss_corners(mixed.corners(), corners, weight=shares, avg_factor=weight)
            for name, mixed in true.with_one_part_of(boxes).items()
        }
        with torch.no_grad():
            trust = (-(boxes.corners() - corners).abs().mean((1, 2))).exp()
        losses['loss_conf3d'] = self.loss_confidence(
            part.values['conf'][:, 0], trust, weight=central, avg_factor=weight
        )
        return losses


def _with_objects(instances: CameraInstances) -> tuple[CameraInstances, Tensor]:
    """Number the images anew without those that have no object; if none has one, the first stays.

    Returns:
        The objects, and which images there are.
    """
    shown, images = instances.images.unique(return_inverse=True)
    return replace(instances, images=images), shown if len(shown) else shown.new_zeros(1)


def _rows(values: Tensor) -> Tensor:
    """Turn a map (n, k, h, w) into rows (n * h * w, k)."""
    return values.permute(0, 2, 3, 1).flatten(0, 2)


def _corners_2d(points: Tensor, sides: Tensor) -> Tensor:
    """Turn distances (P, 4) to left, top, right and bottom into boxes (P, 4) x1, y1, x2, y2."""
    return torch.cat([points - sides[:, :2], points + sides[:, 2:]], dim=1)


def _divisor(weights: Sequence[Tensor]) -> float:
    """Sum the weights of all parts and average over processes; a tiny number for 0, as the losses then are 0."""
    return reduce_mean(torch.cat(list(weights)).sum()).clamp(min=1e-6).item()
