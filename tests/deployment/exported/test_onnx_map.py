"""Exported files have the map: the same probabilities as PyTorch, in every frame, and the tools score it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config

from bevformer_plugin.datasets.infos import load_infos
from bevformer_plugin.deployment import (
    HitBudget,
    ModelSurroundings,
    OnnxDetector,
    OnnxForm,
    OnnxPredictor,
    StreamFrame,
    StreamPredictor,
    budget_for,
    check_exported,
    export_checkpoint,
    export_onnx,
)
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import read_map, read_map_protocol
from bevformer_plugin.models import BEVFormer, Frame
from tests.deployment.exported.drives import drive, noise
from tests.deployment.exported.test_onnx_export import foreign_operators, shapes_of
from tests.deployment.maps import JOINT, MAP, map_config, seeded
from tests.deployment.rigs import recorded_frame
from tests.helpers.processes import run_tool

pytestmark = pytest.mark.usefixtures('onnx_libraries')
IMAGE_HW = (192, 320)
MASKS = {'model.heads.map.decoder': {'_delete_': True, 'type': 'MaskMapDecoder', 'num_layers': 2}}
# A LiDAR before the rear axle that is tilted by three degrees to its right.
TILT = np.deg2rad(3.0)
LIDAR2EGO = np.array(
    [[0, 1, 0, 0.94], [-np.cos(TILT), 0, np.sin(TILT), 0], [np.sin(TILT), 0, np.cos(TILT), 1.84], [0, 0, 0, 1]]
)


@pytest.fixture(scope='module')
def joint_cfg(world_options: dict[str, object]) -> Config:
    return map_config(**world_options)


@pytest.fixture(scope='module')
def joint_files(
    onnx_libraries: None, joint_cfg: Config, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The joint model with weights from a seed as a checkpoint, and as an exported file."""
    folder = tmp_path_factory.mktemp('joint')
    checkpoint, exported = folder / 'joint.pth', folder / 'joint.onnx'
    torch.save({'state_dict': seeded(joint_cfg).state_dict()}, checkpoint)
    export_checkpoint(joint_cfg, str(checkpoint), exported, OnnxForm())
    return checkpoint, exported


@pytest.fixture(scope='module')
def frames(synthetic_root: Path, info_files: dict[str, Path]) -> dict[str, StreamFrame]:
    """Two frames of one validation scene and one of the next, by token."""
    infos = load_infos(info_files['mini_val'], root=synthetic_root)['data_list']
    return {info['token']: recorded_frame(info, synthetic_root) for info in (infos[0], infos[1], infos[6])}


def test_a_joint_file_has_the_map_of_the_checkpoint(
    joint_files: tuple[Path, Path], joint_cfg: Config, frames: dict[str, StreamFrame]
):
    checkpoint, exported = joint_files
    ours = StreamPredictor.from_checkpoint(joint_cfg, checkpoint, 'cpu', optimize=False)
    theirs = OnnxPredictor(exported, threads=1)
    assert theirs.map_protocol is ours.map_protocol
    for found, expected in zip(theirs.stream(frames.values()), ours.stream(frames.values()), strict=True):
        np.testing.assert_allclose(found.map.probabilities, expected.map.probabilities, atol=1e-4)
        assert 0.1 < (found.map.probabilities > 0.5).mean() < 0.9
        np.testing.assert_array_equal(found.map.cell_centers('global'), expected.map.cell_centers('global'))
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_a_joint_file_describes_its_map(joint_files: tuple[Path, Path]):
    import onnx

    _, exported = joint_files
    assert foreign_operators(exported) == set()
    model = onnx.load(str(exported))
    assert [entry.version for entry in model.opset_import] == [18]
    assert [value.name for value in model.graph.input] == [
        'images',
        'prev_bev',
        'use_prev_bev',
        'motion',
        'lidar2img',
    ]
    shapes = shapes_of(model.graph.output)
    assert list(shapes) == ['bev', 'scores', 'boxes', 'overflow', 'map_probabilities']
    assert shapes['map_probabilities'] == [4, 200, 200]
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert metadata['map_protocol'] == 'paper' and metadata['map_frame'] == 'lidar'
    assert metadata['map_classes'] == ['car', 'vehicles', 'drivable_area', 'lane_boundary']
    assert metadata['map_extent'] == [-51.2, -51.2, 51.2, 51.2]


def test_the_tool_scores_the_map_of_a_file(
    joint_files: tuple[Path, Path],
    joint_cfg: Config,
    world_options: dict[str, object],
    frames: dict[str, StreamFrame],
    tmp_path: Path,
):
    checkpoint, exported = joint_files
    evaluator = {f'test_evaluator.0.{key.rpartition(".")[2]}': value for key, value in world_options.items()}
    options = [f'{key}={value}' for key, value in {**world_options, **evaluator}.items()]
    options += ['test_evaluator.0.version=v1.0-mini', 'test_dataloader.num_workers=0']
    options += ['test_dataloader.persistent_workers=False']
    out = ['--out', tmp_path / 'results_nusc.json', '--maps-out', tmp_path / 'maps']
    done = run_tool('test', JOINT, exported, *out, '--cfg-options', *options)
    assert done.returncode == 0, done.output
    summary = json.loads((tmp_path / 'maps' / 'map_summary.json').read_text())
    assert (summary['protocol'], summary['samples']) == ('paper', 12)
    assert 0 < summary['scores']['drivable_area@0.5'] < 1
    assert len(json.loads((tmp_path / 'results_nusc.json').read_text())['results']) == 12
    ours = StreamPredictor.from_checkpoint(joint_cfg, checkpoint, 'cpu', optimize=False)
    token, frame = next(iter(frames.items()))
    expected = next(ours.stream([frame])).map.probabilities
    written = read_map(tmp_path / 'maps', read_map_protocol(tmp_path / 'maps'), token)
    np.testing.assert_allclose(written, expected, atol=0.5 / 255 + 1e-4)


@pytest.fixture(scope='module')
def map_model(
    onnx_libraries: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BEVFormer, Sequence[Frame], Path]:
    """A model of the map alone, by the mask decoder and in the frame of the vehicle, with its file and a drive."""
    path, cfg = tmp_path_factory.mktemp('map') / 'map.onnx', map_config(MAP, 'lss', **MASKS)
    lidar2ego = torch.from_numpy(LIDAR2EGO)
    frames = [replace(one, lidar2ego=lidar2ego) for one in drive(IMAGE_HW, frames=3, scene_starts=(0, 2))]
    detector = seeded(cfg)
    surroundings = ModelSurroundings((IMAGE_HW[1], IMAGE_HW[0]), tuple(cfg.cameras), tuple(cfg.class_names))
    budget = budget_for(detector, [frames[0].lidar2img], IMAGE_HW)
    export_onnx(detector, path, surroundings, budget, OnnxForm(19, images='normalized'))
    return detector, frames, path


@torch.no_grad()
def test_a_file_of_the_map_alone_in_the_frame_of_the_vehicle(map_model: tuple[BEVFormer, Sequence[Frame], Path]):
    import onnx

    detector, frames, path = map_model
    model = onnx.load(str(path))
    assert foreign_operators(path) == set() and [entry.version for entry in model.opset_import] == [19]
    assert shapes_of(model.graph.input)['map_to_lidar'] == [2, 3]
    assert list(shapes_of(model.graph.output)) == ['bev', 'overflow', 'map_probabilities']
    exported, ours, theirs = OnnxDetector(path), None, None
    for number, frame in enumerate(frames):
        images = noise((6, 3, *IMAGE_HW), number)
        encoded = detector.encode(images[None], [frame], [ours])
        expected = detector.heads['map'].predict(encoded)['pred_map'][0].data
        raw, theirs = exported.network.step(images, frame, theirs)
        (ours,) = encoded.histories()
        torch.testing.assert_close(raw.map, expected, atol=1e-4, rtol=0)
        assert 0.05 < (raw.map > 0.5).float().mean() < 0.95
        assert exported.network.decode(raw) is None
    mounted_elsewhere = LIDAR2EGO.copy()
    mounted_elsewhere[0, 3] += 5.0
    moved, _ = exported.network.step(images, replace(frame, lidar2ego=torch.from_numpy(mounted_elsewhere)), None)
    assert (moved.map - raw.map).abs().max() > 0.01
    with pytest.raises(InputError, match=r'no lidar2ego, and maps by protocol .lss. are in the vehicle'):
        exported.network.step(images, replace(frame, lidar2ego=None), None)


def test_a_file_of_the_map_alone_fills_data_samples_with_it(map_model: tuple[BEVFormer, Sequence[Frame], Path]):
    _, frames, path = map_model
    frame = frames[0]
    meta = {key: getattr(frame, key).numpy() for key in ('lidar2img', 'ego2global', 'lidar2ego', 'can_bus')}
    sample = Det3DDataSample(metainfo={**meta, 'timestamp': 0.0, 'scene_token': 'a', 'sample_idx': 'b'})
    (found,) = OnnxDetector(path)({'imgs': [noise((1, 6, 3, *IMAGE_HW), 0)]}, [sample])
    assert found.pred_map.data.shape == (4, 200, 200) and 'pred_instances_3d' not in found


def test_files_that_predict_something_else_than_the_config(
    joint_files: tuple[Path, Path],
    map_model: tuple[BEVFormer, Sequence[Frame], Path],
    world_options: dict[str, object],
):
    joint, of_map = OnnxDetector(joint_files[1]).network.description, OnnxDetector(map_model[2]).network.description
    for cfg, described, message in (
        (
            map_config(**world_options),
            of_map,
            "predicts a map by protocol 'lss', the model of the config boxes and a map by",
        ),
        (
            map_config(MAP, **world_options),
            joint,
            "boxes and a map by protocol 'paper', the model of the config a map by",
        ),
        (
            map_config(protocol='petrv2', **world_options),
            joint,
            "'paper', the model of the config boxes and a .* 'petrv2'",
        ),
    ):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        with pytest.raises(InputError, match=message):
            check_exported(cfg, dataset, 'a.onnx', described)


@pytest.mark.parametrize(
    ('config', 'message'),
    [(JOINT, r'no place for the map of heads\.map: .* model\.heads\.map=None'), (MAP, 'predicts the map alone')],
)
def test_the_benchmark_has_no_map(config: Path, message: str, tmp_path: Path):
    cfg = map_config(config)
    surroundings = ModelSurroundings((320, 180), tuple(cfg.cameras), tuple(cfg.class_names))
    form = OnnxForm(profile='mlperf', images='normalized')
    with pytest.raises(InputError, match=message):
        export_onnx(seeded(cfg), tmp_path / 'a.onnx', surroundings, HitBudget(9, 2), form)
    assert not list(tmp_path.iterdir())
