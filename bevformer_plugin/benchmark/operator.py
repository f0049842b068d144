"""Timing multi-scale deformable attention, backend by backend, at the shapes of the released configs."""

import statistics
from dataclasses import dataclass

import torch
from torch import Tensor

from bevformer_plugin.errors import InputError
from bevformer_plugin.ops import BACKENDS, multi_scale_deformable_attention, set_attention_backend

from .machine import describe_machine
from .plain_formulation import sample_by_grid
from .timing import timed

PLAIN = 'plain'  # name of the formulation with grid_sample, which is no backend
HEADS, CHANNELS = 8, 32
BASE_LEVELS = ((116, 200), (58, 100), (29, 50), (15, 25))


@dataclass(frozen=True)
class Shape:
    """The sizes of a call.

    Attributes:
        maps: number of maps, each with a list of queries.
        queries: number of queries of each list.
        levels: (h, w) of each level of a map.
        points: sampling points for each level and head.
    """

    maps: int
    queries: int
    levels: tuple[tuple[int, int], ...]
    points: int


# The number of SCA's queries is that of the camera of a nuScenes rig that sees most.
SHAPES = {
    'tiny TSA': Shape(2, 2500, ((50, 50),), 4),
    'tiny SCA': Shape(6, 660, ((15, 25),), 8),
    'tiny decoder': Shape(1, 900, ((50, 50),), 4),
    'small TSA': Shape(2, 22500, ((150, 150),), 4),
    'small SCA': Shape(6, 6000, ((23, 40),), 8),
    'small decoder': Shape(1, 900, ((150, 150),), 4),
    'base TSA': Shape(2, 40000, ((200, 200),), 4),
    'base SCA': Shape(6, 9800, BASE_LEVELS, 8),
    'base decoder': Shape(1, 900, ((200, 200),), 4),
}


def benchmark_operator(shapes: dict[str, Shape] | None = None, rounds: int = 3) -> dict:
    """Time every backend that supports this device, in float32, and a plain formulation with ``grid_sample``.

    Locations are spread evenly over the maps and a little beyond. In every round each backend runs once in turn.

    Args:
        shapes: shapes by name; those of the released configs by default.
        rounds: number of measured rounds, which follow one to warm up.

    Returns:
        ``settings`` and ``shapes``: per shape and backend ``forward`` and ``forward_backward`` with ``seconds`` (a
        value per round) and ``ratio`` (median over the rounds of the plain time divided by the backend's).

    Raises:
        InputError: for fewer than one round.
    """
    if rounds < 1:
        raise InputError(f'rounds must be at least 1, not {rounds}')
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    report = {}
    for name, shape in (SHAPES if shapes is None else shapes).items():
        inputs = _inputs(shape, device)
        backends = [
            PLAIN,
            *(backend for backend in BACKENDS if BACKENDS[backend].supports(device.type, torch.float32)),
        ]
        seconds = {backend: {'forward': [], 'forward_backward': []} for backend in backends}
        for number in range(rounds + 1):
            for backend in backends:
                times = _times(backend, shape, inputs)
                if number:
                    for scope, value in times.items():
                        seconds[backend][scope].append(value)
        report[name] = {
            backend: {
                scope: {
                    'seconds': times,
                    'ratio': statistics.median(
                        plain / own for plain, own in zip(seconds[PLAIN][scope], times, strict=True)
                    ),
                }
                for scope, times in scopes.items()
            }
            for backend, scopes in seconds.items()
        }
    return {'settings': describe_machine(), 'shapes': report}


def _inputs(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Draw value, locations and weights that require gradients."""
    generator = torch.Generator().manual_seed(0)
    positions = sum(height * width for height, width in shape.levels)
    sampling = (shape.maps, shape.queries, HEADS, len(shape.levels), shape.points)
    value = torch.randn(shape.maps, positions, HEADS, CHANNELS, generator=generator)
    locations = torch.rand(*sampling, 2, generator=generator) * 1.1 - 0.05
    weights = torch.rand(sampling, generator=generator).flatten(3).softmax(-1).view(sampling)
    value, locations, weights = (tensor.to(device).requires_grad_() for tensor in (value, locations, weights))
    return value, locations, weights


def _times(backend: str, shape: Shape, inputs: tuple[Tensor, Tensor, Tensor]) -> dict[str, float]:
    """Measure the seconds of one forward pass, and of one with its backward pass."""
    value, locations, weights = inputs
    spatial_shapes = torch.tensor(shape.levels)

    def plain() -> Tensor:
        return sample_by_grid(value, [list(level) for level in shape.levels], locations, weights)

    def ours() -> Tensor:
        return multi_scale_deformable_attention(value, spatial_shapes, locations, weights)

    set_attention_backend(None if backend == PLAIN else backend)
    try:
        forward = plain if backend == PLAIN else ours
        with torch.no_grad():
            seconds = {'forward': timed(forward)[0]}
        seconds['forward_backward'] = timed(lambda: forward().sum().backward())[0]
    finally:
        set_attention_backend(None)
    for tensor in inputs:
        tensor.grad = None
    return seconds


def operator_table(report: dict) -> str:
    """Format the report of :func:`benchmark_operator` as a table for a terminal."""
    lines = [
        ', '.join(f'{key}: {value}' for key, value in report['settings'].items()),
        f'{"":<28}{"forward ms":>12}{"ratio":>8}{"with backward ms":>18}{"ratio":>8}',
    ]
    for name, backends in report['shapes'].items():
        for backend, scopes in backends.items():
            cells = [
                f'{1000 * statistics.median(scope["seconds"]):>{width}.3f}{scope["ratio"]:>8.2f}'
                for scope, width in zip(scopes.values(), (12, 18), strict=True)
            ]
            lines.append(f'{name:<16}{backend:<12}{"".join(cells)}')
    lines.append('medians over the rounds; ratio: of the plain time over its own')
    return '\n'.join(lines)
