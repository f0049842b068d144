"""Whole detectors over all frames of every stream file, and one training step of every training file."""
import json
import re
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData
from reference_files import files, real_files, reference_module

from bevformer_plugin.checkpoint.layout import our_name, swap_box_convention
from bevformer_plugin.datasets.transforms import ResizeMultiView
from bevformer_plugin.geometry import boxes_to_old_convention
from bevformer_plugin.training import load_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'bevformer'
SIZES = {'bevformer_tiny': (480, 800, 0.5), 'bevformer_small': (736, 1280, 0.8), 'bevformer_base': (928, 1600, 1.0)}
CAMERAS = ['CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT']
METRES = dict(atol=5e-4, rtol=1e-5)  # a position is a sigmoid stretched over 102.4 m: 5e-6 of it in float32


def images_of(path: Path, frame: int) -> torch.Tensor:
    """(6, 3, H, W) images of a frame as the network sees them: noise, or real photographs through our pipeline."""
    name, kind = path.name.split('.')[:2]
    height, width, scale = SIZES[name]
    if kind == 'rig':
        return torch.from_numpy(reference_module('rig').images(frame, height, width))
    photos = []
    for camera in CAMERAS:
        photo, = (path.parent / 'images').glob(f'*__{camera}__*.jpg')
        photos.append(np.roll(mmcv.imread(str(photo)).astype(np.float32), 16 * frame, axis=1))
    size = tuple(round(scale * side) for side in photos[0].shape[1::-1])
    results = {'history': [], 'scale': size, 'img': photos, 'lidar2img': np.stack([np.eye(4)] * len(photos))}
    resized = np.stack(ResizeMultiView().transform(results)['img']).transpose(0, 3, 1, 2)
    preprocessor = MODELS.build(load_config(str(CONFIGS / f'{name}.py')).model.data_preprocessor)
    return preprocessor({'inputs': {'img': [torch.from_numpy(resized)[None]]}})['inputs']['imgs'][0, 0]


def starts_scene(frames: list[dict], index: int) -> bool:
    """Whether the network saw no motion although the vehicle's pose changed: the history was dropped."""
    motion = frames[index]['can_bus_delta'][[0, 1, 2, 17]]
    return index == 0 or (not motion.any() and (frames[index]['can_bus'] != frames[index - 1]['can_bus']).any())


def assert_same_detections(result: InstanceData, expected: dict) -> None:
    """Equal detections in score order, where scores that tie to 1e-5 may swap places."""
    scores = torch.from_numpy(expected['scores'])
    torch.testing.assert_close(result.scores_3d, scores, atol=1e-5, rtol=0)
    boxes = boxes_to_old_convention(result.bboxes_3d.tensor)
    ours = torch.cat([boxes, result.labels_3d[:, None]], dim=-1)
    theirs = torch.cat([torch.from_numpy(expected['boxes']), torch.from_numpy(expected['labels'])[:, None]], dim=-1)
    distance = (ours[:, None] - theirs[None]).abs()
    turn = ours[:, None, 6] - theirs[None, :, 6]
    distance[..., 6] = torch.atan2(turn.sin(), turn.cos()).abs()
    tie = (scores[:, None] - scores[None]).abs() < 1e-5
    tie[-1] = True  # the last place may go to a detection whose tied rival was cut off
    nearest = distance.amax(-1).masked_fill(~tie, torch.inf).min(dim=1).values
    assert nearest[:-1].max() < 1e-3


@pytest.mark.parametrize('path', files('bevformer_*.stream.npz') + real_files('*.stream.npz'))
@torch.no_grad()
def test_stream(path, build_published):
    model = build_published(path.name.split('.')[0]).eval()
    head = model.pts_bbox_head
    content = np.load(path)
    frames = [{key.partition('.')[2]: content[key] for key in content if key.startswith(f'f{frame}.')}
              for frame in range(len({key.partition('.')[0] for key in content}))]
    histories, scene = [None], 0
    for number, expected in enumerate(frames):
        imgs = images_of(path, number)
        np.testing.assert_allclose(imgs[:, :, ::37, ::41], expected['img_sample'], atol=1e-5)
        scene += starts_scene(frames, number)
        meta = dict(lidar2img=expected['lidar2img'], can_bus=expected['can_bus'], scene_token=str(scene),
                    timestamp=0.5 * number)
        outputs, histories = model.stream_step(imgs[None], [meta], histories)
        bev_embed = outputs['bev_embed']
        if number + 1 < len(frames) and not starts_scene(frames, number + 1):
            # The published code turns the previous BEV in place: the file holds it as the next frame left it.
            bev_embed, _ = head.transformer.ego_alignment.align(
                bev_embed, torch.from_numpy(frames[number + 1]['can_bus_delta'])[None], head.grid)
        stride = max(1, bev_embed.shape[1] // 250)
        for key, value in {'bev_embed_sample': bev_embed[0, ::stride], 'cls0': outputs['all_cls_scores'][0, 0],
                           'cls': outputs['all_cls_scores'][-1, 0]}.items():
            torch.testing.assert_close(value, torch.from_numpy(expected[key]), atol=1e-4, rtol=1e-5,
                                       msg=lambda text, key=key, number=number: f'f{number}.{key}: {text}')
        for key, layer in (('bbox0', 0), ('bbox', -1)):
            rows = swap_box_convention(torch.from_numpy(expected[key]).T).T
            torch.testing.assert_close(outputs['all_bbox_preds'][layer, 0], rows, **METRES)
        assert_same_detections(head.predict(outputs)[0], expected)


def without_dropout(model: torch.nn.Module) -> torch.nn.Module:
    """Switch off what is random in training."""
    model.grid_mask = None
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    return model


def lidar2img_of(path: Path) -> np.ndarray:
    """Calibration of a training file's frames: the rig's, or that of the stream beside it."""
    name, kind = path.name.split('.')[:2]
    if kind == 'rig':
        return reference_module('rig').lidar2img(SIZES[name][2])
    return np.load(path.with_name(f'{name}.{kind}.stream.npz'))['f0.lidar2img']


@pytest.mark.parametrize('path', files('bevformer_*.train.npz') + real_files('*.train.npz'))
def test_training_step(path, build_published):
    reference = np.load(path)
    # The file holds what the network saw; a pose whose differences are these stands for the vehicle's own.
    can_bus = reference['can_bus'].copy()
    can_bus[:, :3] = can_bus[:, :3].cumsum(0)
    can_bus[:, 17] = can_bus[:, 17].cumsum(0)
    metas = [dict(lidar2img=lidar2img_of(path), can_bus=pose, scene_token='rig', timestamp=0.5 * frame)
             for frame, pose in enumerate(can_bus)]
    sample = Det3DDataSample(metainfo={**metas[-1], 'history': metas[:-1]})
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(reference['gt_boxes_lwh'], box_dim=9),
        labels_3d=torch.from_numpy(reference['gt_labels']))
    imgs = torch.stack([images_of(path, frame) for frame in range(len(metas))])

    model = without_dropout(build_published(path.name.split('.')[0]).train())
    losses = model.loss(dict(imgs=imgs[None]), [sample])
    expected = {key.removeprefix('loss.'): reference[key].item() for key in reference if key.startswith('loss.')}
    assert {key: value.item() for key, value in losses.items()} == pytest.approx(expected, rel=1e-4)

    sum(losses.values()).backward()
    norms = json.loads(path.with_name(re.sub(r'\.npz$', '_grad_norms.json', path.name)).read_text())
    ours = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    assert ours == pytest.approx({our_name(key): norm for key, norm in norms.items()}, rel=1e-3, abs=1e-4)
