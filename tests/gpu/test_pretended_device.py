"""Training and streaming leave no tensor behind on the CPU, and wait for a GPU in no other places than named here."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bevformer_plugin.deployment import StreamFrame, StreamPredictor
from bevformer_plugin.deployment.frame_predictor import ModelInputs
from bevformer_plugin.geometry import pillar_points
from bevformer_plugin.models import BEVFormer
from bevformer_plugin.ops import BACKENDS, set_attention_backend
from bevformer_plugin.ops.backends import Backend
from bevformer_plugin.ops.native import attention as native
from tests.deployment.rigs import rendered_drive
from tests.gpu.training_steps import MODELS_OF, build, optimizer_of, stream, training_step
from tests.helpers.pretended_device import (
    DEVICE,
    PretendedDevice,
    PretendedTensor,
    UndefinedWriteError,
    WrongDeviceError,
)

# Where the CPU waits for a GPU in every frame that is predicted, and how often.
HITS = 'layers/spatial_cross_attention.py from_projection: nonzero'  # their number decides the shapes of the encoder
FINITE = 'models/bev/encoded_frames.py histories: _to_copy'  # whether the next frame may see this one
KEPT = 'models/bev/kept_frames.py left_behind: _to_copy'  # likewise
# Boxes outside of the range are dropped, and MMDetection3D's boxes copy two constants.
BOXES = {
    'models/heads/box_coder.py decode: nonzero': 1,
    'models/heads/detection_head.py decode_instances: _to_copy': 2,
}


@pytest.fixture
def one_call_attention(monkeypatch):
    """Attention on the pretended device is one call, as in Triton on a GPU, instead of many of the reference's."""
    backend = Backend(lambda device, dtype: device in (DEVICE.type, 'cpu'), native.forward, native.backward)
    monkeypatch.setitem(BACKENDS, 'pretended', backend)
    set_attention_backend('pretended')


def tensors_of(detector: nn.Module) -> dict[str, Tensor]:
    return {**dict(detector.named_parameters()), **dict(detector.named_buffers())}


def assert_same(found: Tensor, expected: Tensor) -> None:
    """The same numbers, although found on the pretended device: it computes with the same operators."""
    assert isinstance(found, PretendedTensor)
    torch.testing.assert_close(found.on_cpu, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name', MODELS_OF)
def test_a_training_step_runs_on_another_device(small_configs, training_batches, name):
    cfg, batch = small_configs[name], training_batches[name]
    expected = build(cfg)
    losses = training_step(expected, optimizer_of(expected, cfg), batch)
    with PretendedDevice():
        detector = build(cfg).to(DEVICE)
        optimizer = optimizer_of(detector, cfg)
        found = training_step(detector, optimizer, batch)
        assert found.keys() == losses.keys()
        for loss, value in losses.items():
            assert float(found[loss]) == pytest.approx(float(value), rel=1e-4, abs=1e-5), loss
        assert all(tensor.device == DEVICE for tensor in tensors_of(detector).values())
        before = tensors_of(build(cfg))
        moved = {name for name, tensor in tensors_of(detector).items() if not torch.equal(tensor.cpu(), before[name])}
        assert moved == {
            name for name, tensor in tensors_of(expected).items() if not torch.equal(tensor, before[name])
        }


@pytest.mark.parametrize('name', MODELS_OF)
def test_a_scene_streams_on_another_device_and_waits_in_known_places(small_configs, scenes, one_call_attention, name):
    cfg, scene = small_configs[name], scenes[name]
    set_attention_backend(None)
    expected = stream(build(cfg), scene)
    set_attention_backend('pretended')
    with PretendedDevice() as device:
        detector = build(cfg).to(DEVICE)
        with device.watched():
            found = stream(detector, scene)
        for ours, theirs in zip(found, expected, strict=True):
            assert_same(ours.pred_instances_3d.bboxes_3d.tensor, theirs.pred_instances_3d.bboxes_3d.tensor)
            assert_same(ours.pred_instances_3d.scores_3d, theirs.pred_instances_3d.scores_3d)
            if 'pred_map' in theirs:
                assert_same(ours.pred_map.data, theirs.pred_map.data)
        (history,) = detector.streams.values()
        states = [history.bev_embed] if name != 'BEVFormerV2' else [x for kept in history.kept for x in kept.levels]
        assert states and all(state.device == DEVICE for state in states)
    frames = len(scene)
    waits = Counter({place: frames * times for place, times in BOXES.items()})
    waits += Counter({HITS: 2 * frames - 1, KEPT: frames} if name == 'BEVFormerV2' else {HITS: frames, FINITE: frames})
    assert device.waits == waits


def test_frames_of_ones_own_cameras_wait_for_hits_once(small_configs, one_call_attention):
    rig, images, poses = rendered_drive(index=4, frames=range(5, 8))
    frames = [StreamFrame(images[i], rig, poses[i], 0.5 * i) for i in range(len(images))]
    inputs = ModelInputs.from_config(small_configs['nano'])
    set_attention_backend(None)
    expected = list(StreamPredictor(build(small_configs['nano']), inputs, optimize=False).stream(frames))
    set_attention_backend('pretended')
    for optimize in (False, True):
        with PretendedDevice() as device:
            predictor = StreamPredictor(build(small_configs['nano']).to(DEVICE), inputs, optimize)
            with device.watched():
                found = list(predictor.stream(frames))
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.bboxes_3d.tensor, theirs.bboxes_3d.tensor, atol=1e-3, rtol=1e-3)
        results = {'deployment/frame_predictor.py step: _to_copy': 3}
        every_frame = Counter({FINITE: 1, **BOXES, **results})
        assert device.waits == Counter({place: 3 * times for place, times in every_frame.items()}) + Counter({HITS: 1})


def encode_and_decode(detector: BEVFormer, scene: list[dict], device: PretendedDevice) -> Counter:
    """Run encoder and decoder of a scene's frames with hits that are known, and return where they waited."""
    detector.eval()
    history = None
    for item in scene:
        data = detector.data_preprocessor({'inputs': {'img': [item['inputs']['img']]}, 'data_samples': None})
        imgs, frames = data['inputs']['imgs'][:, 0], detector.frames_of([item['data_samples'].metainfo])
        hits = detector.bev_encoder.hits(frames, (imgs.shape[-2], imgs.shape[-1]))
        with torch.no_grad(), device.watched():
            encoded = detector.encode(imgs, frames, [history], hits)
            detector.pts_bbox_head(encoded.bev_embed)
        (history,) = encoded.histories()
    return device.waits


def test_encoder_and_decoder_never_wait(small_configs, scenes, one_call_attention):
    with PretendedDevice() as device:
        waits = encode_and_decode(build(small_configs['nano']).to(DEVICE), scenes['nano'], device)
    assert not waits


PLANTS = {
    'item': lambda bev: bev.sum().item(),
    'bool': lambda bev: bool(bev.any()),
    'tolist': lambda bev: bev[0, 0].tolist(),
    'mask': lambda bev: bev[bev > 0],
    'nonzero': lambda bev: bev.nonzero(),
    'cpu': lambda bev: bev.cpu(),
    'list as index': lambda bev: bev[:, [0, 1]],
    'new_tensor': lambda bev: bev.new_tensor([1.0]),
    'blocking copy': lambda bev: torch.ones(1).to(bev),
}


def test_planted_waits_are_found(small_configs, scenes, one_call_attention):
    with PretendedDevice() as device:
        detector = build(small_configs['nano']).to(DEVICE)
        for name, plant in PLANTS.items():

            def look(module: nn.Module, inputs: tuple, bev: Tensor, plant: Callable = plant) -> None:
                plant(bev)

            hook = detector.bev_encoder.encoder.layers[0].register_forward_hook(look)
            waits = encode_and_decode(detector, scenes['nano'][:1], device)
            hook.remove()
            assert sum(waits.values()) == 1, (name, waits)
            waits.clear()


def test_a_planted_tensor_on_the_cpu_is_found(small_configs, scenes, training_batches, monkeypatch):
    cfg, scene = small_configs['nano'], scenes['nano']
    with PretendedDevice():
        detector = build(cfg).to(DEVICE)
        with (
            pytest.raises(WrongDeviceError, match=r'project_to_cameras takes tensors of two devices'),
            monkeypatch.context() as patch,
        ):
            patch.setattr(
                'bevformer_plugin.models.bev.bev_encoder.pillar_points', lambda grid, n, device: pillar_points(grid, n)
            )
            stream(detector, scene[:1])
        detector.heads['detection'].queries.code_weights = torch.ones(10)
        with pytest.raises(WrongDeviceError, match=r'bev_proposals.py _draw'):
            training_step(detector, optimizer_of(detector, cfg), training_batches['nano'])
        stream(detector, scene[:1])
        ((name, history),) = detector.streams.items()
        detector.streams[name] = type(history)(history.bev_embed.cpu(), history.frame)
        with pytest.raises(WrongDeviceError):
            stream(detector, scene[1:2])


def test_the_pretended_device_takes_what_a_gpu_takes():
    with PretendedDevice() as device, device.watched():
        there, here = torch.arange(4.0, device=DEVICE), torch.arange(4.0)
        assert (there + torch.tensor(2.0)).tolist() == [2, 3, 4, 5]
        assert there[torch.tensor([0, 2])].tolist() == [0, 2] and there[[True, False, False, True]].tolist() == [0, 3]
        there[0] = 5.0
        there[there > 4] = 1.0
        assert there.cpu().tolist() == [1, 1, 2, 3]
        for refused in (
            lambda: there + here,
            lambda: torch.stack([there, here]),
            lambda: torch.where(here > 1, there, 0.0),
            lambda: here.add_(there),
            lambda: here[there.long()],
            lambda: torch.tensor(1.0).add_(there.sum()),
            lambda: nn.functional.linear(there, here),
            lambda: torch.cat([there.sum()[None], torch.zeros(1)]),
        ):
            with pytest.raises(WrongDeviceError, match='two devices'):
                refused()
        twice = torch.tensor([0, 0], device=DEVICE)
        there[twice] = 6.0  # one value
        there.index_put_((twice,), torch.ones(2, device=DEVICE), accumulate=True)
        with pytest.raises(UndefinedWriteError, match='several values to one place'):
            there[twice] = torch.tensor([7.0, 8.0], device=DEVICE)
        with pytest.raises(RuntimeError):
            there.numpy()
    with pytest.raises(WrongDeviceError, match='outside of the block'):
        there + 1
