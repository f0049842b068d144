"""Settings at their places of version 0.1.0 are taken over with a warning, or refused with the remedy."""

import pytest
from mmdet3d.registry import MODELS

from bevformer_plugin.configuration import load_config
from bevformer_plugin.errors import InputError
from tests.helpers.repository import CONFIGS

NANO = CONFIGS / 'bevformer_nano.py'
TINY = CONFIGS / 'bevformer_tiny.py'


def child(place, base, model):
    path = place / 'child.py'
    path.write_text(f'_base_ = [{str(base)!r}]\nmodel = {model!r}\n')
    return path


def test_moved_settings_of_a_child_config_reach_their_places(tmp_path):
    head = {
        'num_classes': 2,
        'box_coder': {'max_num': 7},
        'transformer': {'dropout': 0.25, 'encoder': {'num_layers': 2}, 'decoder': {'num_layers': 3}},
    }
    model = load_config(child(tmp_path, NANO, {'pts_bbox_head': head})).model
    detection = model.heads.detection
    assert 'pts_bbox_head' not in model
    assert (detection.num_classes, model.heads.perspective.num_classes) == (2, 2)
    assert (detection.box_coder.max_num, detection.box_coder.type) == (7, 'NMSFreeCoder')
    assert (model.bev_encoder.dropout, detection.dropout) == (0.25, 0.25)
    assert (model.bev_encoder.encoder.num_layers, detection.decoder.num_layers) == (2, 3)
    detector = MODELS.build(model)
    assert detector.pts_bbox_head is detector.heads['detection']
    assert detector.pts_bbox_head.num_classes == 2


def test_moved_settings_of_the_command_line_reach_their_places():
    options = {'model.pts_bbox_head.num_query': 11, 'model.pts_bbox_head.criterion.loss_bbox.loss_weight': 0.5}
    detection = load_config(TINY, options).model.heads.detection
    assert detection.queries.num_query == 11
    assert detection.criterion.loss_bbox.loss_weight == 0.5


def test_classes_are_not_given_to_a_head_that_is_left_out(tmp_path):
    model = load_config(child(tmp_path, TINY, {'pts_bbox_head': {'num_classes': 2}})).model
    assert list(model.heads) == ['detection'] and model.heads.detection.num_classes == 2


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        ({'pts_bbox_head': {'embed_dims': 64}}, r'pts_bbox_head\.embed_dims .*img_neck\.out_channels'),
        ({'pts_bbox_head': {'proposals': {}}}, r'pts_bbox_head\.proposals .*detection\.queries'),
        ({'pts_bbox_head': {'bbox_coder': {}}}, r'pts_bbox_head\.bbox_coder .*model\.heads\.detection'),
        ({'pts_bbox_head': 5}, r'pts_bbox_head .*model\.heads\.detection'),
        ({'perspective_supervision': None}, r'perspective_supervision .*model\.heads\.perspective'),
        ({'attention_backend': 'native'}, r'attention_backend .*BEVFORMER_ATTENTION_BACKEND'),
    ],
)
def test_settings_without_a_place_are_refused_with_the_remedy(tmp_path, model, message):
    with pytest.raises(InputError, match=message):
        load_config(child(tmp_path, NANO, model))
    (name, value), *_ = model.items()
    with pytest.raises(InputError, match=message):
        load_config(NANO, {f'model.{name}': value})
