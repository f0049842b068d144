"""Checks of the arguments of deformable attention, made before any kernel runs."""

import torch
from torch import Tensor


def check_arguments(
    value: Tensor,
    spatial_shapes: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    lengths: Tensor | None,
) -> None:
    """Refuse arguments whose shapes, types or devices do not belong together.

    No values are read, so this does not wait for a GPU and can be traced.

    Args:
        value: (M, S, heads, C).
        spatial_shapes: (L, 2).
        sampling_locations: (R, heads, L, P, 2), or (M, Q, heads, L, P, 2) if lengths is None.
        attention_weights: shaped as sampling_locations without its last axis.
        lengths: (M,), or None if every map has Q queries.

    Raises:
        ValueError: if they do not; the message names all shapes, types or devices.
    """
    tensors = {
        'value': value,
        'spatial_shapes': spatial_shapes,
        'sampling_locations': sampling_locations,
        'attention_weights': attention_weights,
    }
    rows = 'M, Q' if lengths is None else 'R'
    layouts = {
        'value': 'M, S, heads, C',
        'spatial_shapes': 'L, 2',
        'sampling_locations': f'{rows}, heads, L, P, 2',
        'attention_weights': f'{rows}, heads, L, P',
    }
    if lengths is not None:
        tensors['lengths'], layouts['lengths'] = lengths, 'M'
    if not _fit(tensors, layouts):
        given = ', '.join(f'{name} {tuple(tensor.shape)}' for name, tensor in tensors.items())
        wanted = ', '.join(f'{name} ({layout})' for name, layout in layouts.items())
        raise ValueError(
            f'arguments of deformable attention do not fit each other: {given}; wanted are {wanted}, with M, heads, '
            'C, L and P of 1 at least'
        )
    floating = ('value', 'sampling_locations', 'attention_weights')
    for name, tensor in tensors.items():
        if name in floating and not tensor.is_floating_point():
            raise ValueError(f'{name} of deformable attention must be of a floating type, got {tensor.dtype}')
        if name not in floating and tensor.dtype not in (torch.int64, torch.int32):
            raise ValueError(f'{name} of deformable attention must be int64 or int32, got {tensor.dtype}')
    devices = {name: tensor.device for name, tensor in tensors.items() if name != 'spatial_shapes'}
    if devices.get('lengths') == torch.device('cpu'):
        del devices['lengths']  # every backend can read lengths from the CPU
    if any(device != value.device for device in devices.values()):
        given = ', '.join(f'{name} on {device}' for name, device in devices.items())
        raise ValueError(f'arguments of deformable attention are on different devices: {given}')


def _fit(tensors: dict[str, Tensor], layouts: dict[str, str]) -> bool:
    """Tell whether every tensor has the axes of its layout, and an axis has the same size in all tensors."""
    sizes = {'2': 2}
    for name, layout in layouts.items():
        axes = layout.split(', ')
        if tensors[name].ndim != len(axes):
            return False
        for axis, size in zip(axes, tensors[name].shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                return False
    return all(sizes[axis] >= 1 for axis in ('M', 'heads', 'C', 'L', 'P'))


def level_shapes(value: Tensor, spatial_shapes: Tensor) -> list[list[int]]:
    """Read the spatial shapes as numbers, and check them against the value.

    Raises:
        ValueError: if a shape is not positive, or all shapes together have another number of positions than the value.
    """
    shapes = spatial_shapes.tolist()
    if any(height < 1 or width < 1 for height, width in shapes):
        raise ValueError(f'spatial_shapes must be positive, got {shapes}')
    needed = sum(height * width for height, width in shapes)
    if needed != value.shape[1]:
        raise ValueError(f'value holds {value.shape[1]} positions, the spatial shapes {shapes} need {needed}')
    return shapes


def rows_of_maps(lengths: Tensor, rows: int) -> list[int]:
    """Read the lengths as numbers, and check that they divide the rows among the maps; this waits if a GPU holds them.

    Raises:
        ValueError: if a length is negative, or the lengths do not sum to the number of rows.
    """
    counts = lengths.tolist()
    if any(count < 0 for count in counts) or sum(counts) != rows:
        raise ValueError(f'lengths {counts} do not divide the {rows} rows of sampling_locations among the maps')
    return counts
