"""Where spatial cross-attention samples the cameras for a pillar, by the encoder's own layers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.layers import BEVFormerEncoder, PillarHits, SpatialCrossAttention, sampling_locations
from bevformer_plugin.visualization import CameraLook, PillarView


@dataclass(frozen=True)
class RecordedSampling:
    """What one layer's spatial cross-attention sampled in one forward pass.

    Attributes:
        hits: which cameras saw which queries.
        locations: (K, heads, L, P, 2) of the sampling points, fractions of the padded image, (x, y).
        weights: (K, heads, L, P) of the points, which sum to one over L * P.
    """

    hits: PillarHits
    locations: Tensor
    weights: Tensor


@contextmanager
def recorded_sampling(encoder: nn.Module) -> Iterator[list[RecordedSampling]]:
    """Record what the layers of an encoder sample while the block runs.

    Args:
        encoder: the layers, as ``detector.bev_encoder.encoder``.

    Yields:
        A list to which each forward pass of each layer is added. BEVFormerV2 runs the encoder once for every frame
        that it fuses, the current one last.

    Raises:
        InputError: the spatial cross-attention has no sampling points.
    """
    assert isinstance(encoder, BEVFormerEncoder)
    records: list[RecordedSampling] = []

    def record(attention: nn.Module, inputs: tuple[Tensor, Tensor, Tensor, PillarHits]) -> None:
        assert isinstance(attention, SpatialCrossAttention)
        query, _, spatial_shapes, hits = inputs
        with torch.no_grad():
            reference_points, offsets, weights = attention.predict_sampling(query, hits)
            locations = sampling_locations(spatial_shapes, reference_points, offsets)
        records.append(RecordedSampling(hits, locations, weights))

    attentions = [layer.get_submodule('spatial_cross_attention') for layer in encoder.layers]
    for attention in attentions:
        if not isinstance(attention, SpatialCrossAttention):
            raise InputError(
                f"the encoder's spatial cross-attention is a {type(attention).__name__}, which looks at all features "
                'of all cameras: there are no sampling points to draw'
            )
    hooks = [attention.register_forward_pre_hook(record) for attention in attentions]
    try:
        yield records
    finally:
        for hook in hooks:
            hook.remove()


def query_at(grid: BEVGrid, x: float, y: float) -> int:
    """Return the index of the query whose cell holds a place in the LiDAR frame, in metres.

    Raises:
        InputError: the place is outside of the grid.
    """
    x_min, y_min, _, x_max, y_max, _ = grid.point_cloud_range
    if not (x_min <= x < x_max and y_min <= y < y_max):
        raise InputError(
            f'({x:g}, {y:g}) is no place in the BEV: x goes from {x_min:g} to below {x_max:g} m (to the right) and '
            f'y from {y_min:g} to below {y_max:g} m (forward)'
        )
    row = min(math.floor((y - y_min) / grid.cell_y), grid.bev_h - 1)
    column = min(math.floor((x - x_min) / grid.cell_x), grid.bev_w - 1)
    return row * grid.bev_w + column


def pillar_view(
    records: Sequence[RecordedSampling],
    query: int,
    grid: BEVGrid,
    image_hw: tuple[int, int],
    to_stored: Mapping[str, np.ndarray],
) -> PillarView:
    """Collect where the pillar of a query looks, in the pixels of the images as they are stored.

    Args:
        records: of all layers in one forward pass of a single sample.
        query: index of the query.
        grid: the BEV grid.
        image_hw: padded size of the network's images in pixels.
        to_stored: for each camera, in the order of the model's inputs, the map (3, 3) of homogeneous pixels of the
            network's image to those of the stored one.
    """
    row, column = divmod(query, grid.bev_w)
    x_min, y_min = grid.point_cloud_range[:2]
    hits = records[0].hits
    of_query = (hits.query_index == query).nonzero()[:, 0]
    cameras = torch.repeat_interleave(torch.arange(len(hits.lengths)), hits.lengths.cpu())[of_query.cpu()].tolist()
    names = list(to_stored)
    looks: dict[str, CameraLook] = {}
    for hit, camera in zip(of_query.tolist(), cameras, strict=True):
        name = names[camera]
        looks[name] = CameraLook(
            reference_points=_stored(hits.reference_points[hit], image_hw, to_stored[name]),
            points=tuple(_stored(record.locations[hit], image_hw, to_stored[name]) for record in records),
            # Heads add up channels of their own and cameras are averaged, so that all points of a layer sum to 1.
            weights=tuple(
                (record.weights[hit] / record.weights.shape[1] / len(cameras)).flatten().float().cpu().numpy()
                for record in records
            ),
        )
    return PillarView(
        centre=(x_min + (column + 0.5) * grid.cell_x, y_min + (row + 0.5) * grid.cell_y),
        cell=(row, column),
        cell_size=(grid.cell_x, grid.cell_y),
        num_layers=len(records),
        looks=looks,
    )


def _stored(fractions: Tensor, image_hw: tuple[int, int], to_stored: np.ndarray) -> np.ndarray:
    """Turn (..., 2) fractions of the padded image into (n, 2) pixels of the stored image."""
    pixels = fractions.reshape(-1, 2).double().cpu().numpy() * (image_hw[1], image_hw[0])
    stored = np.column_stack([pixels, np.ones(len(pixels))]) @ to_stored.T
    return stored[:, :2] / stored[:, 2:]
