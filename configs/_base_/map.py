# The map head and its protocol, which all configs that segment the map share; bevformer_plugin/maps/protocols.py has
# the protocols.
map_protocol = 'paper'
map_head = dict(
    type='MapHead',
    protocol=map_protocol,
    decoder=dict(type='ConvMapDecoder'),
    loss_focal=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.5, loss_weight=5.0),
    loss_dice=dict(type='mmdet.DiceLoss', naive_dice=True, eps=1.0, loss_weight=3.0),
)
