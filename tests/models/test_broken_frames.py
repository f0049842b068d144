"""What is broken about one frame is refused by name, or stays with that frame."""

import logging

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.logging import MMLogger

from bevformer_plugin.models import BEVFormerDataPreprocessor
from bevformer_plugin.ops import native, set_attention_backend
from tests.models.small_detector import batch

CLOSE = dict(atol=1e-5, rtol=1e-5)


class Messages(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.fixture
def warnings():
    """Warnings that are logged during a test."""
    logger, handler = MMLogger.get_current_instance(), Messages()
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    yield handler.texts
    logger.removeHandler(handler)


def broken(values, *place):
    """A copy with NaN at a place."""
    values = np.array(values, dtype=np.float64)
    values[place] = np.nan
    return values


BROKEN = [
    (
        lambda meta: {'lidar2img': broken(meta['lidar2img'], 2, 1, 3)},
        r'lidar2img of camera 2 of sample a1 is not finite',
    ),
    (
        lambda meta: {'lidar2img': broken(meta['lidar2img'], 0, 0, 0), 'cameras': ['CAM_FRONT', 'CAM_BACK']},
        r'lidar2img of CAM_FRONT of sample a1 is not finite',
    ),
    (
        lambda meta: {'lidar2img': meta['lidar2img'][:, :3]},
        r'lidar2img of sample a1 has shape \(6, 3, 4\), not \(6, 4, 4\)',
    ),
    (lambda meta: {'can_bus': broken(meta['can_bus'], 7)}, r'can_bus in values \[7\] of sample a1 is not finite'),
    (lambda meta: {'can_bus': np.zeros(17)}, r'can_bus of sample a1 has shape \(17,\), not \(13,\)'),
    (lambda meta: {'can_bus': ['fast'] * 13}, r'can_bus of sample a1 holds no numbers'),
    (lambda meta: {'timestamp': float('inf')}, r'timestamp of sample a1 is not finite'),
    (lambda meta: {'ego2global': broken(np.eye(4), 0, 3)}, r'ego2global of sample a1 is not finite'),
    (lambda meta: {'ego2global': 2 * np.eye(4)}, r'ego2global of sample a1 is no rotation with a translation'),
    (lambda meta: {'lidar2ego': np.zeros((4, 4))}, r'lidar2ego of sample a1 is no rotation'),
    (lambda meta: {'timestamp': 'soon'}, r'timestamp of sample a1 holds no numbers: soon'),
    (lambda meta: {'lidar2ego': np.eye(3)}, r'lidar2ego of sample a1 has shape \(3, 3\), not \(4, 4\)'),
]


@pytest.mark.parametrize(('change', 'message'), BROKEN)
def test_a_broken_meta_is_refused_at_every_door(build_detector, make_sample, change, message):
    model = build_detector()
    imgs, sample = make_sample(range(1, 2))
    sample.set_metainfo(change(sample.metainfo))
    with pytest.raises(ValueError, match=message):
        model.train().loss(*batch((imgs, sample)))
    with pytest.raises(ValueError, match=message):
        model.eval().predict(*batch((imgs, sample)))
    with pytest.raises(ValueError, match=message):
        model.frames_of([sample.metainfo])
    imgs, queue = make_sample(range(3))
    queue.set_metainfo({'history': [queue.history[0], {**queue.history[1], **change(queue.history[1])}]})
    with pytest.raises(ValueError, match=message):
        model.train().loss(*batch((imgs, queue)))


def test_a_meta_that_lacks_something_is_refused(build_detector, make_sample):
    _, sample = make_sample(range(1))
    meta = {key: value for key, value in sample.metainfo.items() if key != 'ego2global'}
    with pytest.raises(ValueError, match='the meta of sample a0 lacks ego2global'):
        build_detector().frames_of([meta])


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_images_that_are_not_finite_are_named(make_sample, value, dtype):
    preprocessor = BEVFormerDataPreprocessor([0.0] * 3, [1.0] * 3)
    imgs, sample = make_sample(range(3))
    sample.set_metainfo({'cameras': ['FRONT', 'RIGHT', 'LEFT', 'BACK', 'BACK_LEFT', 'BACK_RIGHT']})
    imgs = imgs.to(dtype)
    preprocessor(dict(inputs=dict(img=[imgs]), data_samples=[sample.clone()]))
    imgs[1, 3, 2, 5, 7] = value
    with pytest.raises(ValueError, match='image of BACK of sample a1 has values that are not finite'):
        preprocessor(dict(inputs=dict(img=[imgs]), data_samples=[sample]))


def test_images_of_other_types_and_shapes_are_refused():
    preprocessor, sample = BEVFormerDataPreprocessor([0.0] * 3, [1.0] * 3), Det3DDataSample(metainfo=dict(history=[]))
    for images, message in (
        (torch.zeros(1, 6, 3, 8, 8, dtype=torch.uint16), 'sample 0 of the batch are torch.uint16, not uint8'),
        (torch.zeros(1, 6, 1, 8, 8), r'have shape \(1, 6, 1, 8, 8\), not \(frames, cameras, 3, H, W\)'),
        (torch.zeros(6, 3, 8, 8), r'have shape \(6, 3, 8, 8\)'),
    ):
        with pytest.raises(ValueError, match=message):
            preprocessor(dict(inputs=dict(img=[images]), data_samples=[sample]))
    ranges = torch.tensor([[[0.0, 255.0], [0.0, float('nan')]]])
    with pytest.raises(
        ValueError, match='the image of camera 1 of sample 0 of the batch has values that are not finite'
    ):
        preprocessor(
            dict(
                inputs=dict(img=[torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8)], img_range=[ranges]),
                data_samples=[sample],
            )
        )


@pytest.fixture(params=['reference', 'native'])
def backend(request):
    if request.param == 'native' and native.load_library() is None:
        pytest.skip('no C++ compiler')
    set_attention_backend(request.param)
    yield request.param
    set_attention_backend(None)


@torch.no_grad()
def test_a_bev_that_is_not_finite_never_becomes_history(build_detector, make_sample, warnings, backend):
    """Frame 1 of scene a overflows; those after it are of a stream that starts anew, and b does not notice."""
    model = build_detector().eval()

    def stream(scenes: str, first: int, poison: bool) -> list[list]:
        model.reset_streams()
        found = []
        for frame in range(first, 4):
            items = [make_sample(range(frame, frame + 1), scene) for scene in scenes]
            if poison and frame == 1:
                items[0][0][:, 3] = 1e38  # one camera's images, finite
            results = model.predict(*batch(*items))
            assert ('a' in model.streams) == ('a' in scenes and not (poison and frame == 1))
            found.append([result.pred_instances_3d for result in results])
        return found

    poisoned = stream('ab', 0, poison=True)
    assert [text[: text.index(':')] for text in warnings] == ['the BEV of sample a1 is not finite']
    begins, beside = stream('a', 2, poison=False), stream('b', 0, poison=False)
    for frame in range(4):
        torch.testing.assert_close(poisoned[frame][1].scores_3d, beside[frame][0].scores_3d, **CLOSE)
    for frame in (2, 3):
        assert len(poisoned[frame][0].scores_3d) > 0
        torch.testing.assert_close(poisoned[frame][0].scores_3d, begins[frame - 2][0].scores_3d, **CLOSE)
    assert len(warnings) == 1


def test_a_history_frame_that_is_not_finite_leaves_training_finite(build_detector, make_sample, warnings):
    model = build_detector().train()
    imgs, sample = make_sample(range(2))
    imgs[0] = 1e38
    losses = model(*batch((imgs, sample)), mode='loss')
    assert 'the BEV of sample a0 is not finite' in warnings[0]
    alone = model(*batch((imgs[1:], make_sample(range(1, 2))[1])), mode='loss')
    for key, loss in losses.items():
        torch.testing.assert_close(loss, alone[key])


@torch.no_grad()
@pytest.mark.parametrize(
    ('seconds', 'message', 'remedy'),
    [
        (2.5, 'farther apart than max_time_gap=2 s: sample a1 is 2.5 s after the one before', 'model.max_time_gap'),
        (0.0, 'not in the order of their timestamps: sample a1 is 0 s after the one before', 'reset_streams()'),
        (-0.5, 'not in the order of their timestamps: sample a1 is -0.5 s after the one before', 'reset_streams()'),
    ],
)
def test_history_that_is_not_used_is_said_once(build_detector, make_sample, warnings, seconds, message, remedy):
    model = build_detector().eval()
    for frame in range(4):
        imgs, sample = make_sample(range(frame, frame + 1))
        sample.set_metainfo({'timestamp': 10 + seconds * frame})
        model.predict(*batch((imgs, sample)))
    assert len(warnings) == 1
    assert f'frames of scene a are {message}' in warnings[0]
    assert remedy in warnings[0]


def test_history_that_is_not_used_in_training_is_said_once(build_detector, make_sample, warnings):
    imgs, sample = make_sample(range(3))
    sample.set_metainfo(
        {
            'history': [
                {**meta, 'timestamp': -3.0 * age} for age, meta in ((2, sample.history[0]), (1, sample.history[1]))
            ]
        }
    )
    model = build_detector().train()
    for _ in range(2):
        model(*batch((imgs, sample)), mode='loss')
    assert len(warnings) == 1 and 'sample a1 is 3 s after the one before' in warnings[0]
    assert not build_detector(use_history=False).train()(*batch((imgs, sample)), mode='loss')['loss_cls'].isnan()
    assert len(warnings) == 1


@torch.no_grad()
def test_history_that_is_used_or_of_another_scene_is_not_spoken_of(build_detector, make_sample, warnings):
    model = build_detector().eval()
    for frame, scene in enumerate('aaab'):
        model.predict(*batch(make_sample(range(frame, frame + 1), scene)))
    assert warnings == []


@pytest.mark.parametrize('gap', [0, -1.0, float('nan')])
def test_a_time_gap_that_no_history_meets_is_refused(build_detector, gap):
    with pytest.raises(ValueError, match=r'max_time_gap is seconds above 0.*use_history=False'):
        build_detector(max_time_gap=gap)
