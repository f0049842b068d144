"""Attentions, scoring functions, and the layers of encoder and decoder."""

from .attention_pooling import MultiHeadAttentionPooling, attention_pooling, causal_mask, padding_mask
from .decoder import DetectionTransformerDecoder, DetectionTransformerDecoderLayer
from .deformable_attention import DeformableAttentionCore
from .encoder import BEVFormerEncoder, BEVFormerEncoderLayer
from .float32 import Float32Linear
from .scoring import AdditiveScore, AttentionScore, BilinearScore, InnerProductScore, ScaledDotProduct
from .spatial_cross_attention import (
    GlobalSpatialCrossAttention,
    PillarHits,
    PointSpatialCrossAttention,
    SpatialCrossAttention,
)
from .temporal_self_attention import TemporalSelfAttention

__all__ = [
    'AdditiveScore',
    'AttentionScore',
    'BEVFormerEncoder',
    'BEVFormerEncoderLayer',
    'BilinearScore',
    'DeformableAttentionCore',
    'DetectionTransformerDecoder',
    'DetectionTransformerDecoderLayer',
    'Float32Linear',
    'GlobalSpatialCrossAttention',
    'InnerProductScore',
    'MultiHeadAttentionPooling',
    'PillarHits',
    'PointSpatialCrossAttention',
    'ScaledDotProduct',
    'SpatialCrossAttention',
    'TemporalSelfAttention',
    'attention_pooling',
    'causal_mask',
    'padding_mask',
]
