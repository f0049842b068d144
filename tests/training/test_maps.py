"""Maps, alone and beside detection, are trained under both engines and scored in one pass."""

import csv
import json
import pickle

import pytest
import torch
from torch.utils.data import Dataset

from bevformer_plugin.configuration import load_config
from bevformer_plugin.training.config import check_evaluation
from bevformer_plugin.training.consistency import check_consistency
from bevformer_plugin.weights import read_checkpoint
from tests.helpers.processes import run_tool
from tests.helpers.repository import REPO

JOINT = 'configs/bevformer/bevformer_nano_joint.py'
MAP = 'configs/bevformer/bevformer_nano_map.py'


@pytest.fixture(scope='module')
def joint_options(small_options):
    """``small_options`` for a config with two evaluators."""
    return [
        f'{section}_evaluator.0.{rest}'
        if (section := option.partition('_evaluator.')[0]) in ('val', 'test')
        and (rest := option.partition('_evaluator.')[2])
        else option
        for option in small_options
    ]


@pytest.fixture(scope='module')
def map_options(small_options):
    """``small_options`` for a config that does not detect."""
    return [option for option in small_options if '_evaluator.' not in option and '.detection.' not in option]


@pytest.fixture(scope='module')
def joint_run(joint_options, tmp_path_factory):
    """Work dir of a finished joint run under Lightning."""
    work_dir = tmp_path_factory.mktemp('runs') / 'joint'
    done = run_tool('train', JOINT, '--work-dir', work_dir, '--cfg-options', *joint_options)
    assert done.returncode == 0, done.output
    return work_dir


def results_of(processes, options, run, folder):
    """Test with so many processes; returns everything written, by name."""
    done = run_tool(
        'test',
        JOINT,
        run / 'last.ckpt',
        '--out',
        folder / 'results_nusc.json',
        '--maps-out',
        folder / 'maps',
        '--cfg-options',
        *options,
        processes=processes,
    )
    assert done.returncode == 0, done.output
    files = [folder / 'results_nusc.json', *sorted((folder / 'maps').rglob('*.*'))]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}


@pytest.fixture(scope='module')
def one_process(joint_options, joint_run, tmp_path_factory):
    """What one process writes."""
    return results_of(1, joint_options, joint_run, tmp_path_factory.mktemp('one'))


def scores_of(work_dir):
    with next(work_dir.glob('csv*/metrics.csv')).open() as file:
        rows = list(csv.DictReader(file))
    return {key: float(row[key]) for row in rows for key in row if row[key]}


def test_a_joint_run_has_the_losses_and_scores_of_both_tasks(joint_run):
    scores = scores_of(joint_run)
    assert {'train/loss_map_focal', 'train/loss_map_dice', 'train/loss_cls', 'train/d0.loss_bbox'} <= scores.keys()
    assert {'nuscenes/NDS', 'map/paper/mIoU@0.5', 'map/paper/drivable_area@best/threshold'} <= scores.keys()
    best = read_checkpoint(str(joint_run / 'best_NDS.ckpt'))['callbacks']
    kept = next(value for key, value in best.items() if key.startswith('BestCheckpoint'))
    assert kept['monitor'] == 'nuscenes/NDS'


def test_one_pass_scores_detection_and_map(one_process):
    summary = json.loads(one_process['maps/map_summary.json'])
    assert summary['protocol'] == 'paper' and summary['samples'] == 12
    assert len([name for name in one_process if name.endswith('.png')]) == 12
    assert len(json.loads(one_process['results_nusc.json'])['results']) == 12


@pytest.mark.parametrize('processes', [2, 4])
def test_scores_do_not_depend_on_the_number_of_processes(one_process, joint_options, joint_run, tmp_path, processes):
    assert results_of(processes, joint_options, joint_run, tmp_path) == one_process  # of two scenes


@pytest.mark.parametrize('engine', ['lightning', 'mmengine'])
def test_a_map_alone_is_trained_and_kept_by_its_own_score(map_options, tmp_path, engine):
    work_dir = tmp_path / 'run'
    done = run_tool('train', MAP, '--engine', engine, '--work-dir', work_dir, '--cfg-options', *map_options)
    assert done.returncode == 0, done.output
    assert "IoU of maps by protocol 'paper' over 12 samples" in done.output
    if engine == 'lightning':
        assert [path.name for path in work_dir.glob('best_*')] == ['best_paper_mIoU@0.5.ckpt']
        assert f'best checkpoint: {work_dir}/best_paper_mIoU@0.5.ckpt (mIoU@0.5 0.' in done.output
        best = read_checkpoint(str(work_dir / 'best_paper_mIoU@0.5.ckpt'))['callbacks']
        kept = next(value for key, value in best.items() if key.startswith('BestCheckpoint'))
        assert kept['monitor'] == 'map/paper/mIoU@0.5'
        assert torch.isclose(kept['best_model_score'], torch.tensor(scores_of(work_dir)['map/paper/mIoU@0.5']))
    else:
        assert list(work_dir.glob('best_map_paper_mIoU@0.5*.pth'))


def test_maps_that_nobody_scores_need_neither_annotations_nor_expansion(
    joint_run, joint_options, copied_root, info_files, tmp_path
):
    """As of a test split: submission and maps are those that are scored otherwise."""
    (copied_root / 'maps').unlink()
    infos = pickle.loads(info_files['mini_val'].read_bytes())
    for entry in infos['data_list']:
        entry['instances'] = []
    (tmp_path / 'infos.pkl').write_bytes(pickle.dumps(infos))
    places = [
        f'test_dataloader.dataset.ann_file={tmp_path}/infos.pkl',
        f'test_evaluator.0.ann_file={tmp_path}/infos.pkl',
    ]
    places += [f'test_dataloader.dataset.data_root={copied_root}', f'test_evaluator.0.data_root={copied_root}']
    shared = ['test', JOINT, joint_run / 'last.ckpt', '--out', tmp_path / 'results_nusc.json']
    options = ['--maps-out', tmp_path / 'maps', '--cfg-options', *joint_options, *places]
    done = run_tool(*shared, '--format-only', *options)
    assert done.returncode == 0, done.output
    assert f'predicted maps written to {tmp_path}/maps' in done.output
    assert len(list((tmp_path / 'maps' / 'probabilities').glob('*.png'))) == 12
    assert not (tmp_path / 'maps' / 'map_summary.json').exists()
    assert len(json.loads((tmp_path / 'results_nusc.json').read_text())['results']) == 12


class DrawsNoMaps(Dataset):
    """A dataset that tells of no maps."""

    def __init__(self):
        self.metainfo: dict[str, object] = {}


def test_maps_of_another_protocol_than_the_models_are_not_written(tmp_path):
    """Without true maps nothing else would tell: those of paper and lss have the same shape."""
    evaluator = {'test_evaluator.0.out_dir': str(tmp_path), 'test_evaluator.0.format_only': True}
    check_evaluation(load_config(REPO / MAP, evaluator), 'test', DrawsNoMaps())
    other = load_config(REPO / MAP, {**evaluator, 'test_evaluator.0.protocol': 'lss'})
    with pytest.raises(
        ValueError, match=r"test_evaluator takes maps by protocol 'lss', but the model predicts .*paper"
    ):
        check_evaluation(other, 'test', DrawsNoMaps())


def test_maps_that_reach_beyond_the_bev_are_said():
    smaller = {'model.point_cloud_range': (-30.0, -51.2, -5.0, 30.0, 51.2, 3.0)}
    said = [check_consistency(load_config(REPO / MAP, options), {}) for options in ({}, smaller)]
    assert said[0] == []
    assert (
        len(said[1]) == 1 and 'reach to (51.2, 51.2) m, the BEV by model.point_cloud_range to (30, 51.2)' in said[1][0]
    )
