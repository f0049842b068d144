"""A setting that nothing reads is refused, wherever it is written."""

from pathlib import Path

import pytest
from mmdet3d.registry import MODELS

from bevformer_plugin.configuration import load_config, packaged_configs
from bevformer_plugin.configuration.unread_settings import refuse_settings_of_the_runner

CONFIGS = Path('configs/bevformer').resolve()
NANO, TINY = str(CONFIGS / 'bevformer_nano.py'), str(CONFIGS / 'bevformer_tiny.py')
HEAD = 'model.heads.detection'


def child(folder: Path, text: str, base: str = NANO) -> str:
    path = folder / 'child.py'
    path.write_text(f'_base_ = [{base!r}]\n{text}\n')
    return str(path)


@pytest.mark.parametrize('name', packaged_configs())
def test_released_configs_hold_nothing_unread(name):
    refuse_settings_of_the_runner(load_config(name))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            'image_size = (160, 90)',
            'child.py sets image_size, .*no effect: .*train_dataloader.dataset.image_size',
        ),
        ("cameras = ['CAM_FRONT']", 'sets cameras, .*handed down already, to train_dataloader.dataset.cameras'),
        ('bev_grid = (32, 32)', r'sets bev_grid, .*\(64, 64\), .*to model.bev_grid'),
        ("class_names = ['car']", 'sets class_names, .*train_dataloader.dataset.metainfo.classes'),
        ('point_cloud_range = [-9, -9, -3, 9, 9, 1]', 'sets point_cloud_range, .*model.point_cloud_range'),
        ('max_epochs = 5', r'handed down already, to train_cfg\.max_epochs\. Set'),
        ('optim_wraper = dict(accumulative_counts=2)', 'nothing reads; did you mean optim_wrapper'),
        ('train_cfg = dict(max_epoch=1)', 'train_cfg.max_epoch: .*did you mean max_epochs'),
        ('model = dict(bev_gird=(8, 8))', 'model.bev_gird: BEVFormer takes no such argument; did you mean bev_grid'),
        ("model = dict(type='BEVFromer')", "nothing is registered as 'BEVFromer'; did you mean BEVFormer"),
        ('train_dataloader = dict(batchsize=2)', 'train_dataloader.batchsize: .*did you mean batch_size'),
        ('train_dataloader = dict(dataset=dict(queue=2))', 'train_dataloader.dataset.queue: .*takes no such argument'),
        ('optim_wrapper = dict(optimizer=dict(learning_rate=1))', 'optim_wrapper.optimizer.learning_rate: AdamW'),
        ('x = (', 'cannot be read: SyntaxError'),
        ('model = dict(bev_grid=_base_.no_such_name)', 'cannot be read: AttributeError'),
    ],
)
def test_child_config(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_config(child(tmp_path, text))


def test_a_variable_that_the_child_hands_down_itself_takes_effect(tmp_path):
    text = 'image_size = (160, 90)\ntrain_dataloader = dict(dataset=dict(image_size=image_size))'
    assert load_config(child(tmp_path, text)).train_dataloader.dataset.image_size == (160, 90)


def test_a_variable_that_a_grandchild_reads_may_be_set(tmp_path):
    base = tmp_path / 'base.py'
    base.write_text(f'_base_ = [{NANO!r}]\nmy_grid = (32, 32)\n')
    path = child(tmp_path, 'model = dict(bev_grid=_base_.my_grid)', str(base))
    assert load_config(path).model.bev_grid == (32, 32)
    with pytest.raises(ValueError, match=r'base\.py sets my_grid, which nothing reads'):
        load_config(child(tmp_path, 'model = dict(use_history=False)', str(base)))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'image_size': (160, 90)}, 'image_size has no effect: .*test_dataloader.dataset.image_size'),
        ({'train_cfg.max_epoch': 1}, 'did you mean max_epochs'),
        ({'optimizer.lr': 0.5}, 'nothing reads optimizer'),
        ({'modl.bev_grid': (8, 8)}, 'nothing reads modl; did you mean model'),
        ({'resume': True}, 'give --resume instead'),
        ({'randomness.seed': 1}, 'give --seed instead'),
        ({'work_dir': 'x'}, 'give --work-dir instead'),
        ({'param_scheduler.7.begin': 1}, 'do not fit config'),
        ({'param_scheduler.0.begn': 1}, r'param_scheduler\[0\].begn: .*did you mean begin'),
        ({f'{HEAD}.queries.num_querys': 3}, 'did you mean num_query'),
        ({'val_evaluator.versoin': 'x'}, 'did you mean version'),
    ],
)
def test_options_of_the_command_line(options, message):
    with pytest.raises(ValueError, match=message):
        load_config(NANO, options)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'launcher': 'pytorch'}, 'launcher=pytorch has no effect under Lightning'),
        ({'log_level': 'DEBUG'}, 'log_level=DEBUG has no effect'),
        ({'default_hooks.checkpoint.max_keep_ckpts': 5}, 'max_keep_ckpts=5 has no effect'),
        ({'default_hooks.logger.ignore_last': False}, 'default_hooks.logger.ignore_last has no effect'),
        ({'env_cfg.cudnn_benchmark': True}, 'cudnn_benchmark=True has no effect'),
        ({'model_wrapper_cfg.broadcast_buffers': False}, 'model_wrapper_cfg=.* has no effect'),
        (
            {'param_scheduler': [{'type': 'ReduceOnPlateauLR'}]},
            'ReduceOnPlateauLR, which is stepped by scores and has no',
        ),
    ],
)
def test_settings_of_the_runner_under_lightning(options, message):
    with pytest.raises(ValueError, match=message):
        refuse_settings_of_the_runner(load_config(NANO, options))


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('model.bev_encoder.num_cameras', 5),
        (f'{HEAD}.embed_dims', 32),
        ('model.bev_encoder.encoder.num_heads', 4),
        (f'{HEAD}.decoder.dropout', 0.5),
        ('model.bev_encoder.encoder.spatial_cross_attention.num_levels', 1),
        (f'{HEAD}.queries.num_classes', 3),
        ('model.heads.perspective.embed_dims', 3),
    ],
)
def test_what_a_module_hands_down_may_not_be_set_below_it(option, value):
    with pytest.raises(ValueError, match=f'sets {option.split(".")[-1]}, which .* hands down'):
        MODELS.build(load_config(NANO, {option: value}).model)


def test_a_name_may_be_given_beside_all_that_it_was_handed_down_to():
    places = [f'{part}_{kind}.data_root' for part in ('val', 'test') for kind in ('dataloader.dataset', 'evaluator')]
    options = dict.fromkeys(('train_dataloader.dataset.data_root', *places), 'elsewhere')
    cfg = load_config(NANO, {'data_root': 'elsewhere', **options})
    assert cfg.train_dataloader.dataset.data_root == cfg.val_evaluator.data_root == 'elsewhere'
    for changes in ({'val_evaluator.data_root': 'third'}, {'data_root': 'third'}):
        with pytest.raises(ValueError, match=r'data_root has no effect: .* handed data_root down already'):
            load_config(NANO, {'data_root': 'elsewhere', **options, **changes})
    with pytest.raises(ValueError, match='data_root has no effect'):
        load_config(NANO, {'data_root': 'elsewhere'})


def test_checkpointing_a_backbone_without_stages_is_refused():
    model = load_config(NANO, {'model.activation_checkpointing': ('img_backbone',)}).model
    model.img_backbone = dict(type='mmdet.EfficientNet', arch='b0', out_indices=(3, 4))
    with pytest.raises(ValueError, match='activation_checkpointing of img_backbone has no effect: a EfficientNet'):
        MODELS.build(model)
