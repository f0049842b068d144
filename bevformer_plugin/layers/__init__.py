"""Attentions, encoder and decoder layers."""
from .decoder import DetectionTransformerDecoder, DetectionTransformerDecoderLayer
from .deformable_attention import DeformableAttentionCore
from .encoder import BEVFormerEncoder, BEVFormerEncoderLayer
from .float32 import Float32Linear
from .spatial_cross_attention import PillarHits, SpatialCrossAttention
from .temporal_self_attention import TemporalSelfAttention

__all__ = [
    'BEVFormerEncoder', 'BEVFormerEncoderLayer', 'DeformableAttentionCore', 'DetectionTransformerDecoder',
    'DetectionTransformerDecoderLayer', 'Float32Linear', 'PillarHits', 'SpatialCrossAttention',
    'TemporalSelfAttention',
]
