"""A sweep of bad inputs: each row names the input, the command line that must refuse it, and the message it gives.

Every row starts a real process. It must end with ``error: ...`` (or with argparse's usage), without a traceback and
without results that look like those of a good input.
"""

import itertools
import json
import os
import shutil
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from bevformer_plugin.datasets import create_nuscenes_infos
from bevformer_plugin.synthetic import create_synthetic_world
from tests.doors.place import JOINT, MAP, NANO, VERSION, Place, first_box
from tests.helpers.processes import run_tool
from tests.helpers.repository import NANO_WEIGHTS, REPO

NAN = float('nan')
LOAD = "[dict(type='LoadMultiViewImages'), dict(type='LoadAnnotations3D'), dict(type='PackTemporalInputs')]"
CROP_ALL = "[dict(type='LoadMultiViewImages'), dict(type='CropMultiView', top=900)]"
NO_OBJECTS = "[dict(type='LoadMultiViewImages'), dict(type='LoadCameraInstances')]"
V2 = REPO / 'projects/bevformer_v2/bevformer_v2_nano.py'
TWO_STAGES = "queries=dict(_delete_=True, type='PerspectiveProposals', num_query=20)"
NO_RESIZE = f'train_dataloader = dict(dataset=dict(pipeline={LOAD}))'
WRONG_SCHEDULE = "param_scheduler = [dict(type='CosineAnnealingLR', T_max='long', by_epoch=False)]"
CLASSES = (
    "['bus', 'car', 'truck', 'construction_vehicle', 'trailer', 'barrier', 'motorcycle', 'bicycle', 'pedestrian']"
)


def _set(target: dict | list, key: str | int, value: object) -> None:
    target[key] = value


def _image(place: Place, pixels: np.ndarray, name: str) -> None:
    """Put another image in the place of a stored one, whatever its file name says."""
    path = place.folder / name
    Image.fromarray(pixels).save(path)
    shutil.copy(path, place.image())


def _cut(place: Place, share: float) -> None:
    content = place.image().read_bytes()
    place.image().write_bytes(content[: int(len(content) * share)])


def _damage(place: Place) -> None:
    """Zeros in the middle of a JPEG, as a broken copy leaves them; its end is whole."""
    content = bytearray(place.image().read_bytes())
    middle = len(content) // 2
    content[middle : middle + 512] = bytes(512)
    place.image().write_bytes(content)


CONFIGS = [
    ('config that does not exist', lambda p: p.train(config='no.py'), 'config no.py does not exist'),
    ('config of another kind', lambda p: p.train(config=REPO / 'configs/_base_/runtime.py'), 'has no model'),
    ('config with a syntax error', lambda p: p.train(config=p.config('x = (')), 'cannot be read: SyntaxError'),
    ('variable set without effect', lambda p: p.train(config=p.config('image_size = (160, 90)')), 'sets image_size'),
    ('misspelt argument', lambda p: p.train(config=p.config('model = dict(bev_gird=(8, 8))')), 'did you mean bev_grid'),
    ('misspelt module', lambda p: p.train(config=p.config("model = dict(type='BEVFormr')")), "as 'BEVFormr'"),
    (
        'iterations instead of epochs',
        lambda p: p.train(config=p.config("train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=2)")),
        'max_epochs',
    ),
    ('no epochs', lambda p: p.train(*p.options(), 'train_cfg.max_epochs=0'), 'max_epochs'),
    ('empty range', lambda p: p.train(*p.options(), 'model.point_cloud_range=(1,1,1,0,0,0)'), 'range'),
    ('grid without cells', lambda p: p.train(*p.options(), 'model.bev_grid=(0,8)'), 'at least one row'),
    ('more queries than cells', lambda p: p.train(*p.options(), 'model.bev_grid=(4,4)'), 'num_query is from 1 to the cells of the 4 x 4 BEV grid, got 150'),
    ('two classes, ten in the data', lambda p: p.train(*p.options(), 'model.heads.detection.num_classes=2'), 'num_classes'),
    ('five cameras, six in the data', lambda p: p.train(*p.options(), 'model.num_cameras=5'), 'num_cameras'),
    (
        'camera that nuScenes lacks',
        lambda p: p.train(*p.options(), "train_dataloader.dataset.cameras=['CAM_TOP']"),
        'CAM_TOP',
    ),
    ('negative image size', lambda p: p.train(*p.options(), 'train_dataloader.dataset.image_size=(-1,90)'), 'image_size'),
    ('offsets that do not rise', lambda p: p.train(*p.options(), 'train_dataloader.dataset.queue_length=None', 'train_dataloader.dataset.frame_offsets=[0,-1]'), 'frame_offsets are whole numbers that rise to 0'),
    ('offsets beside a queue', lambda p: p.train(*p.options(), 'train_dataloader.dataset.frame_offsets=[-1,0]'), 'leave queue_length and random_drop out'),
    (
        'fusion of frames that are not given',
        lambda p: p.train(*p.options(), 'model.frame_offsets=[-2,0]', config=V2),
        'train_dataloader.dataset.frame_offsets is [-1, 0]',
    ),
    (
        'one frame to fuse',
        lambda p: p.train(
            *p.options(), 'model.frame_offsets=[0]', 'train_dataloader.dataset.frame_offsets=[0]', config=V2
        ),
        'a single one has nothing to fuse',
    ),
    ('proposals of no perspective head', lambda p: p.train(*p.options(), config=p.config(f'model = dict(heads=dict(detection=dict({TWO_STAGES})))')), 'starts from the objects of one PerspectiveHead, and model.heads has none'),
    ('crop of more rows than there are', lambda p: p.train(*p.options(), config=p.config(f'train_dataloader = dict(dataset=dict(pipeline={CROP_ALL}))')), 'leaves nothing of an image'),
    ('camera objects that are not loaded', lambda p: p.train(*p.options(), config=p.config(f'train_dataloader = dict(dataset=dict(pipeline={NO_OBJECTS}))')), 'set with_camera_objects=True'),
    ('queue of no frames', lambda p: p.train(*p.options(), 'train_dataloader.dataset.queue_length=0'), 'queue_length'),
    ('value handed down set below', lambda p: p.train(*p.options(), 'model.heads.detection.embed_dims=8'), 'no effect'),
    ('setting of the Runner', lambda p: p.train(*p.options(), 'launcher=pytorch'), 'no effect under Lightning'),
    ('config that divides by zero', lambda p: p.train(config=p.config('x = 1 / 0')), 'cannot be read: ZeroDivisionError'),
    ('number for a section', lambda p: p.train(*p.options(), 'model.ego_motion=5'), 'model.ego_motion is a dict of settings'),
    ('word for a learning rate', lambda p: p.train(*p.options(), 'optim_wrapper.optimizer.lr=fast'), 'lr is a positive number'),
    ('misspelt limit of gradients', lambda p: p.train(*p.options(), 'optim_wrapper.clip_grad.max_nrom=5'), 'clip_grad.max_nrom is not known'),
    ('word for an interval', lambda p: p.train(*p.options(), 'default_hooks.checkpoint.interval=often'), 'checkpoint.interval is a whole number'),
    ('number for a sampler', lambda p: p.train(*p.options(), 'train_dataloader.sampler=5'), 'sampler is the config of a sampler'),
    ('number for a metric', lambda p: p.train(*p.options(), 'val_evaluator=[5]'), 'val_evaluator is the config of a metric'),
    ('momentum that is a word', lambda p: p.train(*p.options(), config=p.config("custom_hooks = [dict(type='EMAHook', momentum='much')]")), 'momentum of EMAHook'),
    ('schedule that cannot be stepped', lambda p: p.train(*p.options(), config=p.config(WRONG_SCHEDULE)), 'param_scheduler cannot be built'),
    ('schedule that the Runner cannot step', lambda p: p.train('--engine', 'mmengine', *p.options(), config=p.config(WRONG_SCHEDULE)), 'the run cannot be built'),
    ('optimizer that the Runner cannot build', lambda p: p.train('--engine', 'mmengine', *p.options(), 'optim_wrapper.optimizer.betas=2'), 'the run cannot be built'),
    ('wrapper that Lightning does not know', lambda p: p.train(*p.options(), 'optim_wrapper.type=ApexOptimWrapper'), '--engine mmengine'),
    ('unknown way to start workers', lambda p: p.train(*p.options(), 'env_cfg.mp_cfg.mp_start_method=spoon'), 'env_cfg.mp_cfg cannot be built'),
]  # fmt: skip

COMMAND_LINES = [
    ('option that nothing reads', lambda p: p.train(*p.options(), 'optimizer.lr=0.5'), 'nothing reads optimizer'),
    ('resume without a run', lambda p: p.train('--resume', *p.options()), 'nothing to resume'),
    ('devices that are no number', lambda p: p.train('--devices', 'many', *p.options()), 'devices'),
    ('no devices', lambda p: p.train('--devices', '0', *p.options()), 'devices'),
    ('unknown accelerator', lambda p: p.train('--accelerator', 'abacus', *p.options()), 'accelerator'),
    ('unknown precision', lambda p: p.train('--precision', '3-bit', *p.options()), 'precision'),
    ('Lightning option for the Runner', lambda p: p.train('--engine', 'mmengine', '--devices', '1', *p.options()), 'engine'),
    ('dataroot that does not exist', lambda p: p.train('--cfg-options', 'train_dataloader.dataset.data_root=/no/such'), '/no/such'),
    ('version that the root lacks', lambda p: ['create_data', 'nuscenes', '--root', p.root, '--version', 'v1.0-test'], 'v1.0-mini'),
    ('no workers', lambda p: p.create_data('--workers', '0'), 'workers must be at least 1'),
    ('CAN-bus folder that does not exist', lambda p: p.create_data('--canbus', p.folder / 'no'), 'CAN-bus'),
    ('batch of no samples', lambda p: p.train(*p.options(), 'train_dataloader.batch_size=0'), 'batch_size is a whole number from 1'),
    ('precision that layers do not have', lambda p: p.train('--precision', '64', *p.options()), "got '64'"),
    ('imports that come too late', lambda p: p.train(*p.options(), 'custom_imports.imports=[os]'), 'set it in a config'),
    ('path with a space and no quotes', lambda p: p.train('--cfg-options', 'load_from=/a', 'b/c'), 'put quotes'),
    ('resume and overwrite', lambda p: p.train('--resume', '--overwrite', *p.options()), 'give one of them'),
    ('schedule restarted without a run', lambda p: p.train('--restart-schedule', *p.options()), 'belongs to --resume'),
    ('negative seed', lambda p: p.train('--seed', '-1', *p.options()), '--seed is from 0'),
    ('work dir that is a file', lambda p: ['train', NANO, '--work-dir', p.file('run', b''), *p.options()], 'is a file'),
    ('submission for a summary', lambda p: ['summarize', f'a={p.submission(lambda c: None)}'], 'is no metrics_summary.json'),
    ('summary that does not exist', lambda p: ['summarize', f'a={p.folder}/no.json'], 'no.json'),
    ('picture of an unknown sample', lambda p: ['visualize', '--root', p.root, '--infos', p.root / 'nuscenes_infos_temporal_val.pkl',
                                                '--out', p.folder / 'pictures', '--sample', 'nobody'], 'nobody'),
    ('check of a folder that does not exist', lambda p: ['check_data', p.folder / 'no'], 'no nuScenes folder at'),
    ('check of a folder without tables', lambda p: ['check_data', p.folder], 'holds no folder of tables'),
    ('check of a version that the root lacks', lambda p: ['check_data', p.root, '--version', 'town'], "unknown nuScenes version 'town'"),
    ('check by no workers', lambda p: ['check_data', p.root, '--workers', '0'], 'workers must be at least 1'),
    ('doctor for a version of no root', lambda p: ['doctor', '--version', VERSION], 'give --root as well'),
]  # fmt: skip

CHECKPOINTS = [
    ('checkpoint that does not exist', lambda p: p.test(*p.options(), checkpoint='no.pth'), 'no.pth does not exist'),
    ('empty checkpoint', lambda p: p.test(*p.options(), checkpoint=p.file('a.pth', b'')), 'a.pth'),
    ('web page for a checkpoint', lambda p: p.test(*p.options(), checkpoint=p.file('a.pth', b'<html>')), 'a.pth'),
    ('list for a checkpoint', lambda p: p.test(*p.options(), checkpoint=_saved(p, [1, 2])), 'not a checkpoint'),
    ('tensor missing', lambda p: p.test(*p.options(), checkpoint=p.checkpoint(_drop_tensor)), 'missing'),
    ('tensor of another shape', lambda p: p.test(*p.options(), checkpoint=p.checkpoint(_reshape_tensor)), 'another shape'),
    ('weight that is not finite', lambda p: p.test(*p.options(), checkpoint=p.checkpoint(_spoil_weight)), 'finite'),
    ('nine classes for ten', lambda p: p.test(*p.options(), f'test_dataloader.dataset.metainfo.classes={CLASSES}'), 'class'),
    ('weights of another grid', lambda p: p.test(*p.options(), 'model.bev_grid=(32,32)'), 'another shape'),
    ('published into a missing folder', lambda p: ['publish_checkpoint', p.checkpoint(lambda c: None), p.folder / 'no' / 'a.pth'], 'no folder'),
    ('converted into a missing folder', lambda p: ['convert_checkpoint', NANO_WEIGHTS, p.folder / 'no' / 'a.pth', '--config', NANO, '--to-published'], 'no folder'),
    ('classes that are no names', lambda p: ['convert_checkpoint', p.checkpoint(_number_classes), p.folder / 'a.pth', '--config', NANO, '--to-published'], 'not a list of names'),
    ('BEVFormer weights in BEVFormerV2', lambda p: p.test(*p.options(), config=V2), 'is of another model: 22 missing (first: bev_fusion.'),
    ('BEVFormer weights converted as BEVFormerV2', lambda p: ['convert_checkpoint', NANO_WEIGHTS, p.folder / 'a.pth', '--config', V2, '--to-published'], 'is not of the model of'),
    ('start from a missing file', lambda p: p.train(*p.options(), 'load_from=ckpts/no.pth'), 'load_from: ckpts/no.pth does not exist; download it'),
    ('start from a published file', lambda p: p.train(*p.options(), f'load_from={_published(p)}'), 'published layout'),
    ('start from nothing that fits', lambda p: p.train(*p.options(), f'load_from={_saved(p, {"a": torch.zeros(1)})}'), 'backbone'),
]  # fmt: skip

INFOS_AND_TABLES = [
    ('no infos', lambda p: _without(p.root / 'nuscenes_infos_temporal_val.pkl', p.test(*p.options())), 'create_data'),
    ('infos that are no pickle', lambda p: _text(p, p.test(*p.options())), 'not a readable pickle'),
    ('infos of another dataset', lambda p: _done(p.infos(lambda c: _set(c['metainfo'], 'dataset', 'kitti')), p.test(*p.options())), 'kitti'),
    ('infos without samples', lambda p: _done(p.infos(lambda c: c['data_list'].clear()), p.test(*p.options())), 'no list of samples'),
    ('pose that is not finite', lambda p: _done(p.first_sample(lambda e: _set(e['ego2global'][0], 3, NAN)), p.test(*p.options())), 'ego2global'),
    ('calibration that is not finite', lambda p: _done(p.first_sample(lambda e: _set(e['images']['CAM_FRONT']['cam2img'][0], 0, NAN)), p.test(*p.options())), 'CAM_FRONT'),
    ('CAN bus that is not finite', lambda p: _done(p.first_sample(lambda e: _set(e['can_bus'], 7, NAN)), p.test(*p.options())), 'can_bus'),
    ('CAN bus of 17 values', lambda p: _done(p.first_sample(lambda e: e['can_bus'].pop()), p.test(*p.options())), 'not 18 numbers'),
    ('message of NaN acceleration', lambda p: _done(p.can_bus(lambda rows: [_set(row['accel'], 0, NAN) for row in rows]), p.create_data()), 'accel'),
    ('pose table of NaN', lambda p: _done(p.table('ego_pose', lambda rows: [_set(row['translation'], 0, NAN) for row in rows]), p.create_data()), 'ego_pose'),
    ('rotation of length 0', lambda p: _done(p.table('ego_pose', lambda rows: [_set(row, 'rotation', [0, 0, 0, 0]) for row in rows]), p.create_data()), 'ego_pose'),
    ('camera without intrinsics', lambda p: _done(p.table('calibrated_sensor', _no_intrinsics), p.create_data()), 'camera_intrinsic'),
    ('box of no size', lambda p: _done(p.table('sample_annotation', lambda rows: [_set(row, 'size', [0, 0, 0]) for row in rows]), p.create_data()), 'size'),
    ('table missing', lambda p: _without(p.root / 'v1.0-mini' / 'ego_pose.json', p.create_data()), 'ego_pose.json'),
    ('table that is cut short', lambda p: _done((p.root / 'v1.0-mini' / 'sample.json').write_text('[{"token"'), p.create_data()), 'cannot be read'),
    ('camera not downloaded', lambda p: _done(p.remove_camera('CAM_BACK'), p.create_data()), 'CAM_BACK'),
    ('own scene names', lambda p: _done(p.table('scene', lambda rows: [_set(row, 'name', f'drive_{n}') for n, row in enumerate(rows)]), p.create_data()), 'split'),
    ('splits file without the scenes', lambda p: p.create_data('--splits', p.file('s.json', b'{"my_train": ["x"], "my_val": ["y"]}')), 's.json|scene'),
    ('true boxes that none is left of', lambda p: _done(_no_points(p), p.train(*p.options())), 'true_boxes'),
    ('evaluator of another version', lambda p: p.test(*p.options(), 'test_evaluator.version=v1.0-trainval'), 'v1.0-trainval'),
    ('evaluator of another split', lambda p: p.test(*p.options(), 'test_evaluator.split=mini_train'), 'mini_train'),
    ('evaluator of other infos', lambda p: p.test(*p.options(), 'test_evaluator.ann_file=nuscenes_infos_temporal_train.pkl'), 'split|samples'),
]  # fmt: skip

IMAGES = [
    ('image missing', lambda p: _without(p.image(), p.test(*p.options())), 'no image file'),
    ('image of no bytes', lambda p: _done(p.image().write_bytes(b''), p.test(*p.options())), 'CAM_FRONT'),
    ('image cut short', lambda p: _done(_cut(p, 0.6), p.test(*p.options())), 'CAM_FRONT'),
    ('image damaged in the middle', lambda p: _done(_damage(p), p.test(*p.options())), 'CAM_FRONT'),
    ('image of 16 bits', lambda p: _done(_image(p, np.full((90, 160), 3000, np.uint16), 'a.png'), p.test(*p.options())), '16'),
    ('image size that no transform makes', lambda p: p.train(*p.options(), config=p.config(NO_RESIZE)), 'put ResizeMultiView into the pipeline'),
    ('image of half the size', lambda p: _done(_image(p, np.zeros((45, 80, 3), np.uint8), 'a.jpg'), p.test(*p.options())), '80 x 45'),
    ('images halved before the infos', lambda p: _done(_halve(p), p.create_data()), '80 x 45'),
    ('page for an image', lambda p: _done(p.image().write_bytes(b'<html></html>'), p.test(*p.options())), 'CAM_FRONT'),
]  # fmt: skip

SUBMISSIONS = [
    ('submission that does not exist', lambda p: p.evaluate(p.folder / 'no.json'), 'does not exist'),
    ('submission that is no JSON', lambda p: p.evaluate(p.file('a.json', b'boxes')), 'not JSON'),
    ('submission without results', lambda p: p.evaluate(p.submission(lambda c: c.pop('results'))), 'results'),
    ('sample left out', lambda p: p.evaluate(p.submission(lambda c: c['results'].popitem())), 'samples are missing'),
    ('unknown class', lambda p: p.evaluate(p.submission(lambda c: _set(first_box(c), 'detection_name', 'tram'))), "'tram'"),
    ('box of NaN', lambda p: p.evaluate(p.submission(lambda c: _set(first_box(c)['translation'], 0, NAN))), 'not finite'),
    ('box of negative size', lambda p: p.evaluate(p.submission(lambda c: _set(first_box(c)['size'], 0, -1.0))), 'size'),
    ('box without a rotation', lambda p: p.evaluate(p.submission(lambda c: first_box(c).pop('rotation'))), 'rotation'),
    ('unknown attribute', lambda p: p.evaluate(p.submission(lambda c: _set(first_box(c), 'attribute_name', 'vehicle.flying'))), 'flying'),
    ('501 boxes', lambda p: p.evaluate(p.submission(_many_boxes)), '501'),
    ('split of another version', lambda p: p.evaluate(p.submission(lambda c: None), '--split', 'val'), "unknown split 'val'; v1.0-mini has mini_train, mini_val"),
]  # fmt: skip

MAPS = [
    ('no map expansion', lambda p: _without(_expansion(p), p.train(*p.map_options(), config=MAP)), 'no map expansion '),
    ('map expansion of an old version', lambda p: _change(_expansion(p), b'"1.3"', b'"1.2"', p.train(*p.map_options(), config=MAP)), 'of version 1.2, not 1.3'),
    ('unknown map protocol', lambda p: p.train(*p.map_options(), 'train_dataloader.dataset.map_protocol=pepar', config=MAP), "no map protocol 'pepar'"),
    ('another map protocol for the data', lambda p: p.train(*p.map_options(), 'train_dataloader.dataset.map_protocol=lss', config=MAP), "draws maps by 'lss': set both alike"),
    ('another map protocol for the evaluator', lambda p: p.train(*p.map_options(), 'val_evaluator.0.protocol=cvt', 'default_hooks.checkpoint.save_best=map/cvt/mIoU@0.5', config=MAP), "scores maps by protocol 'cvt', but the dataset draws maps by 'paper'"),
    ('maps drawn for no head', lambda p: p.train(*p.joint_options(), 'model.heads.map=None', config=JOINT), 'none of model.heads is a MapHead'),
    ('maps without the transform', lambda p: p.train(*p.options(), 'train_dataloader.dataset.map_protocol=paper'), "put dict(type='LoadMapLabels') into the pipeline"),
    ('best checkpoint by a score that is not there', lambda p: p.train(*p.map_options(), 'default_hooks.checkpoint.save_best=nuscenes/NDS', config=MAP), 'is no score of val_evaluator: take map/paper/mIoU@0.5'),
    ('best checkpoint by a threshold that is not scored', lambda p: p.train(*p.map_options(), 'default_hooks.checkpoint.save_best=map/paper/mIoU@0.47', config=MAP), 'is no score of val_evaluator: take map/paper/mIoU@0.5'),
    ('map expansion that is no JSON', lambda p: _change(_expansion(p), b'{', b'<', p.train(*p.map_options(), config=MAP)), 'is not JSON'),
    ('map expansion of version 1.0', lambda p: _change(_expansion(p), b'"version"', b'"form"', p.train(*p.map_options(), config=MAP)), 'of version 1.0, not 1.3'),
    ('location that has no map', lambda p: _done(p.table('log', lambda rows: [_set(row, 'location', 'mars-crater') for row in rows]), p.train(*p.map_options(), config=MAP)), 'maps/expansion/mars-crater.json'),
    ('pictures with maps of no test', lambda p: ['visualize', '--root', p.root, '--infos', p.root / 'nuscenes_infos_temporal_val.pkl', '--maps', p.folder, '--out', p.folder / 'pictures', '--scene', 'scene-0001'], 'no predicted maps in'),
    ('maps of a model without', lambda p: p.test('--maps-out', p.folder / 'maps', *p.options()), '--maps-out is for test_evaluator.type=MapMetric'),
]  # fmt: skip

EXPORTED_FILES = [
    ('opset that TensorRT misreads', lambda p: p.export('--opset', '20', *p.options()), 'opset is one of 18, 19, got 20'),
    ('bytes for the benchmark', lambda p: p.export('--profile', 'mlperf', '--images', 'raw', *p.options()), 'give --images normalized'),
    ('unknown profile', lambda p: p.export('--profile', 'tensorrt', *p.options()), "invalid choice: 'tensorrt'"),
    ('export over a checkpoint', lambda p: _replacing(p.export(*p.options()), p.checkpoint(lambda c: None)), 'spoilt.pth exists'),
    ('export over the checkpoint it reads', lambda p: _over(p.export('--overwrite'), p.checkpoint(lambda c: None), 2), 'spoilt.pth is read'),
    ('export to a name that is no ONNX file', lambda p: _replacing(p.export(*p.options()), p.folder / 'model.txt'), 'ends in .onnx'),
    ('export of an exported file', lambda p: p.export(*p.options(), checkpoint=p.file('a.onnx', b'\x08\x08\x12\x07pytorch')), 'a.onnx is an ONNX file, not a checkpoint'),
    ('submission in the place of a checkpoint', lambda p: p.test(*p.options(), checkpoint=p.submission(lambda c: None)), 'submission.json is JSON, not a checkpoint'),
    ('integers of no frames', lambda p: p.export('--int8', '0'), '--int8 takes one or more frames'),
    ('export of BEVFormerV2', lambda p: ['export', V2, NANO_WEIGHTS, '--out', p.folder / 'model.onnx', *p.options()], 'only a BEVFormer can be exported'),
    ('export for a rig that is missing', lambda p: p.export('--rig', 'no.yaml', *p.options()), 'no.yaml does not exist'),
    ('exported file that does not exist', lambda p: p.test(*p.options(), checkpoint='no.onnx'), 'no.onnx does not exist'),
    ('exported file to be optimised', lambda p: p.test('--optimize', *p.options(), checkpoint=p.file('a.onnx', b'x')), '--optimize is for checkpoints'),
    ('latency of nothing', lambda p: ['benchmark', 'stream', p.file('a.onnx', b'x'), '--frames', '0'], 'frames must be at least 1'),
]  # fmt: skip

REPORTS = [
    ('report on a submission that does not exist', lambda p: p.report(p.folder / 'no.json'), 'no.json does not exist'),
    ('report on one submission twice', lambda p: p.report(*[p.submission(lambda c: None)] * 2), 'submission.json is given twice'),
    ('report on a part of the samples', lambda p: p.report(p.submission(lambda c: c['results'].popitem())), 'samples are missing'),
    ('report of another split', lambda p: p.report(p.submission(lambda c: None), '--split', 'val'), "unknown split 'val'; v1.0-mini has mini_train, mini_val"),
    ('report of another version', lambda p: p.report(p.submission(lambda c: None), '--version', 'v1.0-trainval'), 'v1.0-trainval'),
    ('report over another file', lambda p: _replacing(p.report(p.submission(lambda c: None)), p.file('mine.html', b'x')), 'mine.html exists'),
    ('report on tracks of two submissions', lambda p: p.report('a.json', 'b.json', '--tracks', 'c.json'), '--tracks is for a report on one submission'),
    ('report on tracks that do not exist', lambda p: p.report(p.submission(lambda c: None), '--tracks', p.folder / 'no.json'), 'no.json does not exist'),
    ('report over the submission it reads', lambda p: _over(p.report(p.submission(lambda c: None), '--overwrite'), p.submission(lambda c: None)), 'submission.json is read'),
    ('report on tracks of another model', lambda p: p.report(p.submission(lambda c: None), '--tracks', _tracks(p, [5.0, 0.0, 0.0])), 'has no car at [5.0, 0.0, 0.0] in sample'),
    ('tracks over the submission they are made of', lambda p: ['track', p.submission(lambda c: None), '--infos', p.root / 'nuscenes_infos_temporal_val.pkl', '--out', p.folder / 'submission.json', '--overwrite'], 'submission.json is read'),
    ('scores into a file', lambda p: p.evaluate(p.submission(lambda c: None), '--out', p.file('a.json', b'{}')), 'a.json is a file: give a folder'),
    ('first evaluator of one', lambda p: p.test('--cfg-options', 'test_evaluator.0.data_root=/a'), 'test_evaluator is no list here'),
    ('report into a folder', lambda p: _replacing(p.report(p.submission(lambda c: None), '--overwrite'), p.folder), 'it is a folder'),
]  # fmt: skip

ROWS = [
    *MAPS,
    *CONFIGS,
    *COMMAND_LINES,
    *CHECKPOINTS,
    *INFOS_AND_TABLES,
    *IMAGES,
    *SUBMISSIONS,
    *EXPORTED_FILES,
    *REPORTS,
]


def _done(_change: object, command: list[object]) -> list[object]:
    return command


def _without(path, command: list[object]) -> list[object]:
    path.unlink()
    return command


def _expansion(place: Place):
    """The map of the training scene, in a folder of maps of its own."""
    return place.root / 'maps' / 'expansion' / 'boston-seaport.json'


def _change(path, old: bytes, new: bytes, command: list[object]) -> list[object]:
    path.write_bytes(path.read_bytes().replace(old, new))
    return command


def _over(command: list[object], path, source: int | None = None) -> list[object]:
    """The command with a file for what it writes and, by its index, also for what it reads."""
    if source is not None:
        command[source] = path
    return _replacing(command, path)


def _tracks(place: Place, translation: list[float]) -> object:
    """Tracks of the place's submission, whose boxes were moved."""
    content = json.loads(place.submission(lambda c: None).read_text())
    for token, (box,) in content['results'].items():
        box.pop('attribute_name')
        track = {'tracking_id': '1', 'tracking_name': box.pop('detection_name'), 'tracking_score': 0.5}
        box.pop('detection_score')
        content['results'][token] = [{**box, **track, 'translation': translation}]
    return place.file('tracks.json', json.dumps(content).encode())


def _replacing(command: list[object], path) -> list[object]:
    command[command.index('--out') + 1] = path
    return command


def _text(place: Place, command: list[object]) -> list[object]:
    (place.root / 'nuscenes_infos_temporal_val.pkl').write_text('infos')
    return command


def _saved(place: Place, content: object):
    torch.save(content, place.folder / 'other.pth')
    return place.folder / 'other.pth'


def _published(place: Place):
    return _saved(place, {'pts_bbox_head.transformer.encoder.layers.0.attentions.0.output_proj.bias': torch.zeros(1)})


def _summary(place: Place):
    return place.file('summary.json', b'{}')


def _drop_tensor(content: dict) -> None:
    content['state_dict'].popitem()


def _reshape_tensor(content: dict) -> None:
    name = next(iter(content['state_dict']))
    content['state_dict'][name] = content['state_dict'][name][:1]


def _spoil_weight(content: dict) -> None:
    next(iter(content['state_dict'].values())).fill_(NAN)


def _number_classes(content: dict) -> None:
    content['meta']['dataset_meta']['classes'] = 10


def _no_intrinsics(rows: list[dict]) -> None:
    for row in rows:
        row['camera_intrinsic'] = []


def _no_points(place: Place) -> None:
    for split in ('train', 'val'):
        place.infos(_clear_points, split)


def _clear_points(content: dict) -> None:
    for instance in itertools.chain.from_iterable(entry['instances'] for entry in content['data_list']):
        instance.update(num_lidar_pts=0, num_radar_pts=0, bbox_3d_isvalid=False)


def _halve(place: Place) -> None:
    for path in (place.root / 'samples').glob('CAM_*/*'):
        Image.open(path).resize((80, 45)).save(path)


def _many_boxes(content: dict) -> None:
    boxes = next(iter(content['results'].values()))
    boxes.extend(boxes * 500)


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    """A dataroot with infos: 1 + 1 scenes of 3 keyframes, 160 x 90 pixels."""
    root = tmp_path_factory.mktemp('doors') / 'world'
    create_synthetic_world(root, 1, 1, 3, seed=5, image_size=(160, 90), version='v1.0-mini', workers=1)
    create_nuscenes_infos(root, 'v1.0-mini', workers=1)
    return root


@pytest.fixture
def place(world, tmp_path):
    shutil.copytree(world, tmp_path / 'world')
    (tmp_path / 'out').mkdir()
    return Place(tmp_path / 'world', tmp_path / 'out')


def test_there_are_enough_rows():
    assert len(ROWS) >= 60 and len({name for name, _, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(('command', 'message'), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_bad_input_is_refused(place, command: Callable[[Place], list[object]], message: str):
    done = run_tool(*command(place))
    assert done.returncode in (1, 2), done.output
    assert 'Traceback' not in done.output
    last = done.output[done.output.rindex('error: ') :]
    assert any(part in last for part in message.split('|')), done.output
    assert not (place.folder / 'results_nusc.json').exists()
    assert not list(place.folder.glob('run/*.ckpt'))


def test_the_same_inputs_unspoilt_are_taken(place):
    """The rows above fail for what they spoil, not for how they are written."""
    assert run_tool(*place.create_data()).returncode == 0
    assert run_tool(*place.evaluate(place.submission(lambda content: None))).returncode == 0
    assert run_tool(*place.test('--overwrite', *place.options())).returncode == 0
    done = run_tool(*place.train(*place.options(), 'model.bev_grid=(16,16)'))
    assert done.returncode == 0, done.output


def _choose_abacus() -> None:
    os.environ['BEVFORMER_ATTENTION_BACKEND'] = 'abacus'


def test_an_unknown_attention_backend_is_refused(place):
    done = run_tool(*place.train(*place.options()), plant=_choose_abacus)
    assert done.returncode == 1 and 'Traceback' not in done.output
    assert done.last_line == "error: no attention backend 'abacus': choose from native, triton, mmcv, reference"
