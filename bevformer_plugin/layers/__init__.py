"""Attentions, scoring functions, and the layers of encoder and decoder."""

from .attention_pooling import MultiHeadAttentionPooling, attention_pooling, causal_mask, padding_mask
from .decoder import DecodedQueries, DetectionTransformerDecoder, DetectionTransformerDecoderLayer
from .deform_conv import ModulatedDeformConv2dPack
from .deformable_attention import DeformableAttentionCore, sampling_locations
from .encoder import AlignedHistory, BEVFormerEncoder, BEVFormerEncoderLayer
from .float32 import Float32Linear
from .initialization import init_transformer_weights
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
    'AlignedHistory',
    'AttentionScore',
    'BEVFormerEncoder',
    'BEVFormerEncoderLayer',
    'BilinearScore',
    'DecodedQueries',
    'DeformableAttentionCore',
    'DetectionTransformerDecoder',
    'DetectionTransformerDecoderLayer',
    'Float32Linear',
    'GlobalSpatialCrossAttention',
    'InnerProductScore',
    'ModulatedDeformConv2dPack',
    'MultiHeadAttentionPooling',
    'PillarHits',
    'PointSpatialCrossAttention',
    'ScaledDotProduct',
    'SpatialCrossAttention',
    'TemporalSelfAttention',
    'attention_pooling',
    'causal_mask',
    'init_transformer_weights',
    'padding_mask',
    'sampling_locations',
]
