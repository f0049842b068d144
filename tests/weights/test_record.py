"""What checkpoints record of their training, read from their config's text without running it."""

import pytest
import torch

from bevformer_plugin.configuration import load_config
from bevformer_plugin.weights import TrainingRecord, read_checkpoint, recorded_metainfo
from bevformer_plugin.weights.record import read_config_text
from bevformer_plugin.weights.settings import differences, model_settings, pipeline_settings

RELEASED = ['nano', 'tiny', 'small', 'base']
WEIGHTS = 'projects/synthetic_world/bevformer_nano.pth'


@pytest.mark.parametrize('name', RELEASED)
def test_a_configs_text_gives_its_values_back(name):
    cfg = load_config(f'configs/bevformer/bevformer_{name}.py')
    read = read_config_text(cfg.pretty_text, ('model', 'train_dataloader'))
    assert read == {key: cfg[key].to_dict() for key in ('model', 'train_dataloader')}
    assert differences(model_settings(read['model']), model_settings(cfg.model)) == {}


def test_text_is_read_and_never_run(tmp_path):
    trap = tmp_path / 'trap'
    text = f"import os\nmodel = dict(type=open({str(trap)!r}, 'w'))\na = [1, *[2]]\nb = dict(c=-1.5, d={{'e': None}})"
    assert read_config_text(text, ('model', 'a', 'b')) == {'b': {'c': -1.5, 'd': {'e': None}}}
    assert not trap.exists()
    for unreadable in ('model = dict(', 'model = ' + '[' * 5000, 'model = dict(*x)', '\0'):
        assert read_config_text(unreadable, ('model',)) == {}


def test_the_released_checkpoints_record():
    record = TrainingRecord.of_checkpoint(read_checkpoint(WEIGHTS))
    assert record.classes[2] == 'construction_vehicle' and len(record.classes) == 10
    assert record.cameras[3] == 'CAM_BACK' and len(record.cameras) == 6  # from its config: older files lack the rest
    assert record.image_size == (320, 180) and record.can_bus is None and record.failed_step is None
    assert record.model['point_cloud_range'] == [-51.2, -51.2, -3.0, 51.2, 51.2, 1.0]
    assert record.test_pipeline[0] == {'type': 'LoadMultiViewImages'}


def test_metainfo_goes_before_the_config_and_mmengines_name_is_known(nano):
    metainfo = {'classes': ('car',), 'cameras': ['B', 'A'], 'image_size': (8, 4), 'can_bus': 'nearest'}
    recorded = recorded_metainfo({**metainfo, 'frame': 'vehicle', 'palette': [1]})
    assert recorded == {
        'classes': ['car'],
        'cameras': ['B', 'A'],
        'image_size': [8, 4],
        'can_bus': 'nearest',
        'frame': 'vehicle',
    }
    record = TrainingRecord.of_checkpoint({'meta': {'cfg': nano.pretty_text, 'dataset_meta': recorded}})
    assert (record.classes, record.cameras, record.image_size) == (('car',), ('B', 'A'), (8, 4))
    assert record.can_bus == 'nearest' and record.frame == 'vehicle' and record.model['num_cameras'] == 6


@pytest.mark.parametrize('content', [{}, {'meta': None}, {'meta': {'config': 3, 'dataset_meta': {'classes': 'car'}}}])
def test_nothing_is_known_of_weights_without_a_record(content):
    assert TrainingRecord.of_checkpoint({'weight': torch.zeros(1), **content}) == TrainingRecord()


def test_settings_that_change_no_shape_are_compared(nano):
    recorded = model_settings(nano.model)
    other = load_config(
        'configs/bevformer/bevformer_nano.py',
        {
            'model.data_preprocessor.bgr_to_rgb': False,
            'model.img_backbone.style': 'caffe',
            'model.img_backbone.frozen_stages': 1,
            'model.ego_motion.preset': 'official_v1',
            'model.pts_bbox_head.transformer.dropout': 0.3,
            'model.pts_bbox_head.criterion.code_weights': [1.0] * 10,
            'model.max_time_gap': 1.0,
        },
    ).model
    assert differences(recorded, model_settings(other)) == {
        'data_preprocessor.bgr_to_rgb': (True, False),
        'ego_motion.quaternion_repeats_w': (False, True),
        'ego_motion.rotate_center': (None, (100.0, 100.0)),
        'ego_motion.rotate_interpolation': ('bilinear', 'nearest'),
        'ego_motion.wrap_heading': (True, False),
        'img_backbone.style': ('pytorch', 'caffe'),
        'max_time_gap': (2.0, 1.0),  # the first is the default
    }


def test_a_default_that_is_written_out_is_no_difference(nano):
    written = {
        **nano.model,
        'max_time_gap': 2.0,
        'ego_motion': {'wrap_heading': True},
        'attention_backend': 'reference',
    }
    assert differences(model_settings(nano.model), model_settings(written)) == {}
    bare, full = ([{'type': 'LoadMultiViewImages', **more}] for more in ({}, {'to_float32': False}))
    assert differences(pipeline_settings(bare), pipeline_settings(full)) == {}
    exact = pipeline_settings([{'type': 'LoadMultiViewImages', 'to_float32': True}])
    assert differences(pipeline_settings(bare), exact) == {'0.to_float32': (False, True)}
