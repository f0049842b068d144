"""Model, data, evaluator and checkpoint that do not belong together are found before any work."""

import copy
import json
import os
import re
from pathlib import Path

import mmdet3d
import pytest
import torch

from bevformer_plugin.configuration import load_config
from bevformer_plugin.evaluation import load_results
from bevformer_plugin.training import DetectorDataModule, check_testing, direct_results
from bevformer_plugin.training.consistency import check_consistency, check_first_items
from bevformer_plugin.weights import (
    check_checkpoint,
    check_initialization,
    check_resumption,
    read_checkpoint,
)
from tests.helpers.info_files import write_infos
from tests.helpers.processes import NANO, run_tool
from tests.helpers.repository import REPO

WEIGHTS = 'projects/synthetic_world/bevformer_nano.pth'
CLASSES = load_config(NANO).class_names
CAMERAS = load_config(NANO).cameras
NOT_OF_TRAINING = {'train_dataloader.dataset.queue_length': None, 'train_dataloader.dataset.filter_empty_gt': False}


@pytest.fixture(scope='module')
def ruled_infos(read_infos, tmp_path_factory):
    """Infos of the validation scenes that say to be of another CAN-bus rule."""
    folder, files = tmp_path_factory.mktemp('ruled'), {}
    for rule in ('nearest', 'official_v1', 'none'):
        infos = read_infos('mini_val')
        infos['metainfo']['can_bus'] = rule
        files[rule] = write_infos(folder / f'{rule}.pkl', infos)
    return files


@pytest.fixture(scope='module')
def configured(synthetic_root, info_files):
    """Nano's config on the tiny world; options are added."""

    def configured(**options: object):
        shared = {}
        for part, split in (('train', 'mini_train'), ('val', 'mini_val'), ('test', 'mini_val')):
            shared[f'{part}_dataloader.dataset.data_root'] = str(synthetic_root)
            shared[f'{part}_dataloader.dataset.ann_file'] = str(info_files[split])
            if part != 'train':
                shared[f'{part}_evaluator.data_root'] = str(synthetic_root)
                shared[f'{part}_evaluator.ann_file'] = str(info_files[split])
                shared[f'{part}_evaluator.version'] = 'v1.0-mini'
        return load_config(NANO, {**shared, **options})

    return configured


def each_part(**arguments: object) -> dict[str, object]:
    """Options that give the datasets of all parts the same arguments."""
    return {
        f'{part}_dataloader.dataset.{key}': copy.deepcopy(value)
        for part in ('train', 'val', 'test')
        for key, value in arguments.items()
    }


def test_the_released_config_is_consistent(configured):
    cfg = configured()
    assert check_consistency(cfg, DetectorDataModule(cfg, ('train', 'val', 'test')).datasets) == []


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {**each_part(metainfo={'classes': ['car', 'bus']})},
            'train_dataloader.dataset has 2 classes (car, bus), model.heads.detection.num_classes is 10',
        ),
        ({'model.heads.detection.num_classes': 4}, 'has 10 classes'),
        (
            {**each_part(metainfo={'classes': ['car', 'bus', 'car']}), 'model.heads.detection.num_classes': 3},
            'train_dataloader.dataset names car twice among its classes',
        ),
        ({**each_part(cameras=CAMERAS[:5])}, 'train_dataloader.dataset has 5 cameras (CAM_FRONT, '),
        ({'model.num_cameras': 7}, 'model.num_cameras is 7: set model.num_cameras=6'),
        (
            {'val_dataloader.dataset.metainfo.classes': sorted(CLASSES)},
            'train_dataloader.dataset has the classes car, truck, construction_vehicle, bus, trailer, barrier, '
            'motorcycle, bicycle, pedestrian, traffic_cone, val_dataloader.dataset barrier, bicycle',
        ),
        (
            {'val_dataloader.dataset.cameras': CAMERAS[::-1]},
            'val_dataloader.dataset CAM_BACK_RIGHT, CAM_BACK_LEFT',
        ),
        ({'val_evaluator.version': 'v1.0-trainval'}, 'the evaluator needs nuScenes tables'),
        ({'val_evaluator.version': ['a', 'b']}, "version must be a text, not ['a', 'b'] of type list"),
        ({'test_evaluator.data_root': ['a', 'b']}, "data_root must be a text, not ['a', 'b'] of type list"),
        ({'val_evaluator.split': 'mini_train'}, 'split mini_val, not mini_train'),
        (
            {f'test_{part}.ann_file': 'TRAIN' for part in ('dataloader.dataset', 'evaluator')},
            'the infos are of split mini_train, not mini_val: give infos of mini_val, or score those of mini_train '
            'with test_evaluator.split=mini_train',
        ),
        ({'test_dataloader.dataset.test_mode': False}, 'test_mode=True'),
        ({'train_dataloader.dataset.test_mode': True, **NOT_OF_TRAINING}, 'single frames without true boxes to train'),
        (
            {'val_dataloader.sampler.type': 'DefaultSampler', 'val_dataloader.batch_sampler': None},
            'val_dataloader.sampler is DefaultSampler, which does not give whole scenes in time order',
        ),
        (
            {'test_dataloader.batch_sampler': None, 'test_dataloader.batch_size': 2},
            'test_dataloader.batch_size=2 would put two frames of a scene into a batch',
        ),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(configured, info_files, options, message):
    cfg = configured(
        **{key: str(info_files['mini_train']) if value == 'TRAIN' else value for key, value in options.items()}
    )
    data = DetectorDataModule(cfg, ('train', 'val', 'test'))
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        check_consistency(cfg, data.datasets)


def test_a_detector_without_history_takes_frames_in_any_order(configured):
    cfg = configured(
        **{
            'model.use_history': False,
            'train_dataloader.dataset.queue_length': 1,
            'val_dataloader.sampler.type': 'DefaultSampler',
            'val_dataloader.batch_sampler': None,
        }
    )
    assert check_consistency(cfg, DetectorDataModule(cfg, ('train', 'val')).datasets) == []


@pytest.mark.parametrize(
    ('history', 'length', 'remark'),
    [
        (True, 1, 'trains without history, which the model uses in validation and test'),
        (False, 4, 'model.use_history=False uses one of the 4 frames'),
    ],
)
def test_history_in_training_alone_or_in_tests_alone_is_said(configured, history, length, remark):
    cfg = configured(**{'model.use_history': history, 'train_dataloader.dataset.queue_length': length})
    (said,) = check_consistency(cfg, DetectorDataModule(cfg, ('train', 'val')).datasets)
    assert remark in said


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'val_dataloader.dataset.pipeline': [{'type': 'LoadAnnotations3D'}]}, "KeyError: 'ann_info'"),
        ({'val_dataloader.dataset.pipeline': [{'type': 'ResizeMultiView'}]}, 'put LoadMultiViewImages before it'),
        ({'train_dataloader.dataset.pipeline': [{'type': 'LoadMultiViewImages'}]}, "dict(type='PackTemporalInputs')"),
    ],
)
def test_a_pipeline_that_makes_no_items_is_found_before_the_run(configured, options, message):
    data = DetectorDataModule(configured(**options), ('train', 'val'))
    with pytest.raises(ValueError, match=re.escape(message)):
        check_first_items(data.datasets)


def test_items_of_a_dataset_that_repeats_are_as_random_as_without(configured):
    """Each epoch draws other queues, and a run that is resumed draws the same again."""

    def queues(cfg, epoch: int) -> list[list[str]]:
        loader = DetectorDataModule(cfg, ('train',), seed=3).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return [[*item['token'], *(frame['token'][0] for frame in item['history'])] for item in loader]

    cfg = configured(**{'train_dataloader.dataset.queue_length': 3, 'train_dataloader.dataset.pipeline': []})
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    alone = [queues(cfg, epoch) for epoch in (0, 1)]
    cfg.train_dataloader.dataset = {'type': 'RepeatDataset', 'times': 1, 'dataset': cfg.train_dataloader.dataset}
    assert [queues(cfg, epoch) for epoch in (0, 1)] == alone
    assert sorted(alone[0]) != sorted(alone[1])


def test_an_evaluator_of_other_samples_is_refused_for_testing_too(configured, info_files):
    cfg = configured(
        **{'test_evaluator.ann_file': str(info_files['mini_train']), 'test_evaluator.split': 'mini_train'}
    )
    with pytest.raises(ValueError, match=r'scores the 12 samples of .* the dataset has 12 and 0 are in both'):
        check_consistency(cfg, DetectorDataModule(cfg, ('test',)).datasets)


def test_other_image_sizes_in_validation_are_said(configured):
    cfg = configured(**{'val_dataloader.dataset.image_size': (160, 90)})
    remarks = check_consistency(cfg, DetectorDataModule(cfg, ('train', 'val')).datasets)
    assert remarks == ['image_size is (320, 180) in training and (160, 90) in validation']


def test_validation_on_what_was_trained_on_is_said(configured, info_files, read_infos, tmp_path):
    infos = read_infos('mini_train')
    infos['data_list'] = infos['data_list'][:4]
    some = write_infos(tmp_path / 'some.pkl', infos)
    for file, number in ((info_files['mini_train'], 12), (some, 4)):
        cfg = configured(
            **{f'val_{part}.ann_file': str(file) for part in ('dataloader.dataset', 'evaluator')},
            **{'val_evaluator.split': 'mini_train'},
        )
        inner = cfg.train_dataloader.dataset
        for dataset in (inner, {'type': 'RepeatDataset', 'times': 3, 'dataset': inner}):
            cfg.train_dataloader.dataset = dataset
            (remark,) = check_consistency(cfg, DetectorDataModule(cfg, ('train', 'val')).datasets)
            assert remark.startswith(
                f'training and validation share {number} samples: scores are of data that was trained on'
            )


def test_the_published_preset_asks_for_its_can_bus_rule(configured, synthetic_root):
    cfg = configured(**{'model.ego_motion.preset': 'official_v1'})
    data = DetectorDataModule(cfg, ('train', 'val'))
    assert data.datasets['train'].metainfo['can_bus'] == 'nearest'
    (remark,) = check_consistency(cfg, data.datasets)
    assert 'the infos to train on have CAN-bus rule nearest' in remark
    assert f'--root {synthetic_root} --version v1.0-mini --can-bus-message official_v1 --overwrite' in remark


@pytest.mark.parametrize('rule', ['official_v1', 'none'])
def test_training_and_validation_have_the_same_can_bus_rule(configured, ruled_infos, rule):
    cfg = configured(
        **{f'val_{part}.ann_file': str(ruled_infos[rule]) for part in ('dataloader.dataset', 'evaluator')}
    )
    data = DetectorDataModule(cfg, ('train', 'val'))
    if rule == 'none':
        (remark,) = check_consistency(cfg, data.datasets)
        assert 'CAN-bus rule nearest, those of the dataset have rule none: there acceleration' in remark
    else:
        with pytest.raises(ValueError, match=r'CAN-bus rule nearest, those of the dataset have rule official_v1'):
            check_consistency(cfg, data.datasets)


@pytest.fixture
def recorded(tmp_path, configured):
    """Write a checkpoint of the released weights that records ``dataset_meta`` and a config with ``options``."""

    def recorded(dataset_meta: dict, **options: object) -> str:
        content = read_checkpoint(WEIGHTS)
        content['meta'] = {
            'config': configured(**options).pretty_text,
            'dataset_meta': {'classes': CLASSES, 'cameras': CAMERAS, 'can_bus': 'nearest', **dataset_meta},
        }
        torch.save(content, tmp_path / 'recorded.pth')
        return str(tmp_path / 'recorded.pth')

    return recorded


def checked(cfg, path: str) -> list[str]:
    return check_checkpoint(cfg, DetectorDataModule(cfg, ('test',)).datasets['test'], path, read_checkpoint(path))


def test_a_checkpoint_of_the_same_settings_passes_without_a_word(configured, recorded):
    assert checked(configured(), recorded({'image_size': (320, 180)})) == []
    assert (
        checked(
            configured(),
            recorded({}, **{'model.bev_encoder.dropout': 0.5, 'optim_wrapper.optimizer.lr': 1}),
        )
        == []
    )


@pytest.mark.parametrize(
    ('dataset_meta', 'options', 'message'),
    [
        ({'cameras': CAMERAS[::-1]}, {}, 'was trained with the cameras CAM_BACK_RIGHT, CAM_BACK_LEFT'),
        (
            {'can_bus': 'official_v1'},
            {},
            'CAN-bus rule official_v1, those of the dataset have rule nearest. Make infos',
        ),
        ({}, {'model.data_preprocessor.bgr_to_rgb': False}, 'data_preprocessor.bgr_to_rgb was False, is True'),
        (
            {},
            {'model.data_preprocessor.mean': [103.53, 116.28, 123.675]},
            'mean was (103.53, 116.28, 123.675), is (123.675, 116.28, 103.53)',
        ),
        ({}, {'model.data_preprocessor.std': [1.0, 1.0, 1.0]}, 'std was (1.0, 1.0, 1.0), is (58.395, 57.12, 57.375)'),
        (
            {},
            {'model.point_cloud_range': [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]},
            'point_cloud_range was (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0), is (-51.2, -51.2, -3.0, 51.2, 51.2, 1.0)',
        ),
        ({}, {'model.img_backbone.style': 'caffe'}, 'model.img_backbone.style was caffe, is pytorch'),
        ({}, {'model.bev_encoder.num_heads': 8}, 'bev_encoder.num_heads was 8, is 4'),
    ],
)
def test_a_checkpoint_of_other_data_or_settings_is_refused(configured, recorded, dataset_meta, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        checked(configured(), recorded(dataset_meta, **options))


@pytest.mark.parametrize(
    ('dataset_meta', 'options', 'remark'),
    [
        (
            {'can_bus': 'none'},
            {},
            'CAN-bus rule none, those of the dataset have rule nearest: in its training acceler',
        ),
        ({'image_size': (640, 360)}, {}, 'dataset.image_size was (640, 360), is (320, 180)'),
        ({}, {'model.ego_motion.wrap_heading': False}, 'model.ego_motion.wrap_heading was False, is True'),
        ({}, {'model.max_time_gap': 1.5}, 'model.max_time_gap was 1.5, is 2.0'),
        ({}, {'model.use_history': False}, 'model.use_history was False, is True'),
        (
            {},
            {'test_dataloader.dataset.pipeline.0.to_float32': True},
            'test_dataloader.dataset.pipeline.0.to_float32 was True, is False',
        ),
        ({'can_bus': None, 'cameras': None}, {}, 'does not record its cameras, CAN-bus rule: not compared'),
    ],
)
def test_what_may_be_meant_so_is_said_with_both_values(configured, recorded, dataset_meta, options, remark):
    (said,) = checked(configured(), recorded(dataset_meta, **options))
    assert remark in said


def test_can_bus_rules_are_of_no_account_to_a_model_that_sees_no_messages(configured, recorded):
    channels = {'model.ego_motion.can_bus_channels': (0, 1, 17)}
    assert checked(configured(**channels), recorded({'can_bus': 'official_v1'}, **channels)) == []


def test_starting_from_other_settings_is_said(configured, recorded):
    path = recorded({}, **{'model.data_preprocessor.bgr_to_rgb': False})
    cfg = configured()
    (said,) = check_initialization(
        cfg, DetectorDataModule(cfg, ('train',)).datasets['train'], path, read_checkpoint(path)
    )
    assert 'data_preprocessor.bgr_to_rgb was False, is True' in said


def test_a_training_goes_on_with_its_own_classes_only(configured, recorded):
    cfg = configured()
    dataset = DetectorDataModule(cfg, ('train',)).datasets['train']
    path = recorded({})
    assert check_resumption(cfg, dataset, path, read_checkpoint(path)) == []
    path = recorded({'classes': sorted(CLASSES)})
    with pytest.raises(
        ValueError, match=r'was trained with the classes barrier, bicycle.*start a new run .* load_from='
    ):
        check_resumption(cfg, dataset, path, read_checkpoint(path))


def test_submissions_need_an_evaluator_that_writes_them(configured):
    cfg = configured()
    direct_results(cfg, 'results.json', True)
    assert cfg.test_evaluator.results_path == 'results.json' and cfg.test_evaluator.format_only
    cfg.test_evaluator = [cfg.test_evaluator]
    direct_results(cfg, 'other.json', False)
    assert cfg.test_evaluator[0].results_path == 'other.json'
    cfg.test_evaluator = {'type': 'NuScenesMetric'}
    direct_results(cfg, None, False)
    with pytest.raises(ValueError, match=r'test_evaluator\.type=NuScenesDevkitMetric, it is NuScenesMetric'):
        direct_results(cfg, 'results.json', False)
    cfg.test_evaluator = None
    with pytest.raises(ValueError, match='cannot test: it lacks test_evaluator'):
        check_testing(cfg)


def test_runs_of_both_engines_record_what_they_were_trained_on(lightning_run, mmengine_run, small_options):
    checkpoints = [lightning_run / 'last.ckpt', next(mmengine_run.glob('epoch_*.pth'))]
    for path in checkpoints:
        recorded = read_checkpoint(str(path))['meta']['dataset_meta']
        assert list(recorded['classes']) == CLASSES and list(recorded['cameras']) == CAMERAS
        assert tuple(recorded['image_size']) == (160, 96) and recorded['can_bus'] == 'nearest'


@pytest.mark.parametrize('engine', ['lightning', 'mmengine'])
@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ("train_dataloader.dataset.metainfo.classes=['car','bus']", 'error: train_dataloader.dataset has 2 classes'),
        ('val_evaluator.split=mini_train', 'error: the infos are of split mini_val, not mini_train'),
        ('load_from=/nowhere.pth', 'error: load_from: /nowhere.pth does not exist; download it'),
    ],
)
def test_both_engines_refuse_before_they_begin(small_options, tmp_path, engine, change, message):
    done = run_tool(
        'train', NANO, '--engine', engine, '--work-dir', tmp_path / 'run', '--cfg-options', *small_options, change
    )
    assert done.returncode == 1 and done.last_line.startswith(message), done.output
    assert not list(tmp_path.glob('run/*'))


@pytest.mark.parametrize('engine', ['lightning', 'mmengine'])
def test_fine_tuning_reports_what_it_used(small_options, tmp_path, engine):
    options = [
        *small_options,
        f'load_from={WEIGHTS}',
        'model.heads.detection.num_classes=2',
        'model.heads.perspective.num_classes=2',
        'train_cfg.val_interval=9',
    ]
    options += [f"{part}_dataloader.dataset.metainfo.classes=['pedestrian','car']" for part in ('train', 'val')]
    done = run_tool('train', NANO, '--engine', engine, '--work-dir', tmp_path / 'run', '--cfg-options', *options)
    assert done.returncode == 0, done.output
    assert '227 tensors of 230 used, 9 of them row by row' in done.output
    assert '3 left at their initialisation: bev_encoder.bev_embedding.weight' in done.output
    assert 'classes from the file: pedestrian, car; classes that it does not know: none' in done.output


def test_the_tool_keeps_names_in_another_order_of_classes(small_options, tmp_path, lightning_run):
    found = []
    for number, more in enumerate([(), (f'test_dataloader.dataset.metainfo.classes={sorted(CLASSES)}',)]):
        out = tmp_path / f'{number}.json'
        done = run_tool(
            'test',
            NANO,
            lightning_run / 'last.ckpt',
            '--format-only',
            '--out',
            out,
            '--cfg-options',
            *small_options,
            *more,
        )
        assert done.returncode == 0, done.output
        assert ('brought into the order of the dataset: barrier, bicycle' in done.output) == bool(more)
        entries = [entry for entries in load_results(out).values() for entry in entries]
        found.append(sorted((entry['detection_name'], entry['detection_score']) for entry in entries))
    names, scores = ([[row[column] for row in rows] for rows in found] for column in (0, 1))
    assert len(found[0]) > 100 and names[0] == names[1]
    assert scores[1] == pytest.approx(scores[0], abs=1e-6)
    assert json.loads((tmp_path / '0.json').read_text())['meta']['use_camera']


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ([f'test_dataloader.dataset.metainfo.classes={sorted(CLASSES)}'], 'brought into the order of the dataset'),
        (['model.data_preprocessor.bgr_to_rgb=False'], 'InputError: {weights} was trained with other settings'),
        (['model.bev_grid=(20,20)'], 'InputError: {weights} is of another model: 3 of another shape'),
    ],
)
def test_mmdetection3ds_own_tool_is_as_strict(synthetic_root, info_files, tmp_path, changes, message):
    options = [f'test_evaluator.{key}' for key in (f'data_root={synthetic_root}', 'version=v1.0-mini')]
    options += [f'test_evaluator.results_path={tmp_path / "results.json"}', 'test_evaluator.format_only=True']
    options += [f'test_{part}.ann_file={info_files["mini_val"]}' for part in ('dataloader.dataset', 'evaluator')]
    options += [f'test_dataloader.dataset.data_root={synthetic_root}', 'default_scope=mmdet3d']
    tool = Path(mmdet3d.__file__).parent / '.mim' / 'tools' / 'test.py'
    if not tool.is_file():
        pytest.skip(f'this build of mmdetection3d comes without {tool}')
    relative = os.path.relpath(tool.with_suffix(''), REPO / 'tools')
    done = run_tool(relative, NANO, WEIGHTS, '--work-dir', tmp_path / 'run', '--cfg-options', *options, *changes)
    assert message.format(weights=WEIGHTS) in done.output, done.output
    assert (done.returncode == 0) == ('Error' not in message)


@pytest.mark.parametrize('engine', ['lightning', 'mmengine'])
def test_both_engines_train_from_the_loaded_weights(small_options, tmp_path, engine):
    """With a learning rate of nearly 0 the weights after an epoch are those of the file."""
    options = [
        *small_options,
        'model.bev_grid=(64,64)',
        'model.heads.detection.queries.num_query=150',
        f'load_from={WEIGHTS}',
        'optim_wrapper.optimizer.lr=1e-12',
        'optim_wrapper.optimizer.weight_decay=0',
        'train_cfg.val_begin=9',
    ]
    done = run_tool('train', NANO, '--engine', engine, '--work-dir', tmp_path, '--cfg-options', *options)
    assert done.returncode == 0, done.output
    file = {'lightning': 'last.ckpt', 'mmengine': 'epoch_1.pth'}[engine]
    trained, given = (read_checkpoint(str(path))['state_dict'] for path in (tmp_path / file, WEIGHTS))
    moved = [
        name
        for name, value in given.items()
        if not name.endswith(('running_mean', 'running_var', 'num_batches_tracked', 'code_weights'))
        and not torch.allclose(trained[name], value, rtol=0, atol=1e-6)
    ]
    assert moved == []
