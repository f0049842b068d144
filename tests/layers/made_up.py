"""Made-up tensors, and features in the form that spatial cross-attention takes."""

import torch


def made_up(*shape: int, seed: int = 0) -> torch.Tensor:
    """Draw a float64 tensor from a seed."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def flatten(features: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, N, S, C) features and their (L, 2) shapes."""
    shapes = torch.tensor([level.shape[-2:] for level in features])
    return torch.cat([level.flatten(3) for level in features], dim=-1).transpose(2, 3), shapes
