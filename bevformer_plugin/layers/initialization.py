"""The initial weights of a transformer."""

from mmengine.model import xavier_init
from torch import nn

from .deformable_attention import DeformableAttentionCore


def init_transformer_weights(transformer: nn.Module) -> None:
    """Draw every matrix as Xavier does, for a transformer of this family as published.

    Deformable attention initialises itself afterwards: its first sampling points form a star.
    """
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            xavier_init(module, distribution='uniform')
        elif isinstance(module, nn.MultiheadAttention):
            nn.init.xavier_uniform_(module.in_proj_weight)
    for module in transformer.modules():
        if isinstance(module, DeformableAttentionCore):
            module.init_weights()
