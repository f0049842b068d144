"""Random inputs of modulated deformable convolution, of the settings and shapes that its tests go through."""

import random

import torch
from torch import Tensor

from bevformer_plugin.ops import DeformConvSettings

ONES = (1, 1)
# size, channels, outputs, kernel, settings, pixels that offsets reach
Case = tuple[tuple[int, int], int, int, tuple[int, int], DeformConvSettings, float]
CASES: dict[str, Case] = {
    'as in a ResNet': ((9, 11), 70, 20, (3, 3), DeformConvSettings(ONES, ONES, ONES, 1, 1), 2),
    'far offsets': ((12, 20), 8, 4, (3, 3), DeformConvSettings(ONES, ONES, ONES, 1, 1), 120),
    'strided': ((8, 9), 5, 7, (3, 2), DeformConvSettings((2, 3), (1, 0), ONES, 1, 1), 2),
    'dilated': ((8, 9), 5, 7, (3, 3), DeformConvSettings(ONES, (2, 1), (2, 1), 1, 1), 2),
    'groups that cross': ((6, 7), 12, 8, (3, 2), DeformConvSettings((2, 1), (1, 2), (1, 2), 2, 3), 2),
    'one pixel': ((1, 1), 3, 2, (1, 1), DeformConvSettings(ONES, (0, 0), ONES, 1, 1), 1),
}


def random_case(seed: int) -> Case:
    numbers = random.Random(seed)
    pair = lambda low, high: (numbers.randint(low, high), numbers.randint(low, high))  # noqa: E731
    groups, deform_groups = numbers.randint(1, 3), numbers.randint(1, 3)
    settings = DeformConvSettings(pair(1, 3), pair(0, 2), pair(1, 2), groups, deform_groups)
    channels, outputs = groups * deform_groups * numbers.randint(1, 12), groups * numbers.randint(1, 20)
    return pair(6, 13), channels, outputs, pair(1, 3), settings, numbers.choice([0.5, 3, 120])


CASES.update({f'random {seed}': random_case(seed) for seed in range(5)})


def make_inputs(case: Case, images: int = 2, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Return inputs, offset, mask, weight and bias, drawn in float32."""
    size, channels, outputs, kernel, settings, reach = case
    generator = torch.Generator().manual_seed(channels)
    weight = torch.randn(outputs, channels // settings.groups, *kernel, generator=generator)
    inputs = torch.randn(images, channels, *size, generator=generator)
    out = settings.output_size(inputs.shape, weight.shape)
    taps = settings.deform_groups * kernel[0] * kernel[1]
    offset = reach * (2 * torch.rand(images, 2 * taps, *out, generator=generator) - 1)
    mask = torch.rand(images, taps, *out, generator=generator)
    bias = torch.randn(outputs, generator=generator)
    return tuple(tensor.to(dtype) for tensor in (inputs, offset, mask, weight, bias))
