"""Whole detectors of the published BEVFormerV2: one sample of every file."""

import numpy as np
import pytest
import torch

from bevformer_plugin.geometry import boxes_to_old_convention
from bevformer_plugin.weights.layout import swap_box_convention
from tests.helpers.reference_files import v2_files
from tests.reference.v2_frames import Drive

FPN_STEPS = ((4, 5), (2, 3), (1, 2), (1, 1), (1, 1))
ATOL = 1e-4  # of features, BEVs and logits
METRES = 5e-4
TIE = 1e-5  # scores nearer to each other than this may change places


def assert_close(name: str, ours: torch.Tensor, theirs: np.ndarray, atol: float) -> None:
    error = (ours - torch.from_numpy(theirs)).abs().max().item()
    assert error <= atol, f'{name} is off by {error}'


@pytest.mark.parametrize('path', v2_files('bevformerv2_*.sample.npz'))
@torch.no_grad()
def test_v2_sample(path):
    drive = Drive.of_file(path)
    content = drive.content
    model = drive.model(perspective=False).eval()
    slots = []
    if model.bev_fusion is not None:
        model.bev_fusion.register_forward_pre_hook(lambda _, inputs: slots.append(inputs[0]))
    history = None
    for offset in drive.present:
        imgs = drive.images(offset)
        sample = imgs[:, :, ::37, ::41]
        np.testing.assert_allclose(sample, drive.row('img_sample', offset), atol=1e-5)
        frames = model.frames_of([drive.meta(offset)])
        if offset:
            (history,) = model._states_after(imgs[None], frames, [history])
    encoded = model.encode(imgs[None], frames, [history])

    (features,) = encoded.camera_features
    for level, (rows, columns) in enumerate(FPN_STEPS):
        ours = features.levels[level][0]
        assert list(ours.shape) == content[f'fpn{level}_shape'].tolist()
        assert_close(f'fpn{level}', ours[:, ::16, ::rows, ::columns], content[f'fpn{level}_sample'], ATOL)
    if 'bev_frame_sample' in content:
        (bevs,) = slots
        stride = int(content['bev_frame_stride'])
        assert len(bevs) == len(content['bev_frame_sample'])
        for offset, bev, expected in zip(drive.offsets, bevs, content['bev_frame_sample'], strict=True):
            assert_close(f'BEV of frame {offset}', bev[0, ::stride], expected, ATOL)
    stride = int(content['bev_embed_stride'])
    assert_close('fused BEV', encoded.bev_embed[0, ::stride], content['bev_embed_sample'], ATOL)

    head = model.heads['detection']
    outputs = head(encoded.bev_embed)
    for layer, key in ((0, '0'), (-1, '')):
        assert_close(f'cls{key}', outputs.cls_scores[layer, 0], content[f'cls{key}'], ATOL)
        rows = swap_box_convention(outputs.bbox_preds[layer, 0].T).T
        assert_close(f'bbox{key}', rows, content[f'bbox{key}'], METRES)
    assert_same_boxes(head.detections(outputs)[0], content)


def assert_same_boxes(ours, theirs) -> None:
    """Decoded boxes in the same order, but for those whose scores tie."""
    scores = torch.from_numpy(theirs['scores'])
    torch.testing.assert_close(ours.scores_3d, scores, atol=ATOL, rtol=0)
    difference = boxes_to_old_convention(ours.bboxes_3d.tensor)[:, None] - torch.from_numpy(theirs['boxes'])
    difference[..., 6] = torch.atan2(difference[..., 6].sin(), difference[..., 6].cos())
    same = (difference.abs() <= 4 * METRES).all(-1) & (ours.labels_3d[:, None] == torch.from_numpy(theirs['labels']))
    ties = (scores[:, None] - scores).abs() <= TIE
    alike = (same & ties).any(1)
    # A box that ties with the first one that was left out may be exchanged for it.
    assert alike[ours.scores_3d > scores[-1] + TIE].all()


@pytest.mark.parametrize('path', v2_files('bevformerv2_*.npz'))
def test_v2_alignment_of_a_drive(path):
    """Our motion between frames against the published one, which is float32 at global positions of about 1e3 m."""
    drive = Drive.of_file(path)
    current = drive.unaligned(0)
    for offset in drive.present:
        own = drive.unaligned(offset)
        published = torch.from_numpy(drive.row('lidar2img', offset))
        ours = own.seen_from(current).lidar2img
        assert (ours - published).abs().max() < 0.2, offset  # focal lengths of 1e3 pixels times the motion's 2e-4 m
