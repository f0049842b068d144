"""Scenes over processes and streams."""

import pytest
import torch.distributed as dist
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.testing._internal.distributed.fake_pg import FakeStore

from bevformer_plugin.datasets import SceneStreamBatchSampler, SceneStreamSampler
from bevformer_plugin.datasets.samplers import balance_scenes

LENGTHS = (6, 2, 5, 1)


@pytest.fixture
def uneven_scenes(build_dataset, read_infos):
    """A dataset of four scenes with ``LENGTHS`` frames, and its frames as (scene, frame) numbers."""
    infos = read_infos('mini_train')
    entries = infos['data_list'] + read_infos('mini_val')['data_list']
    scenes = {}
    for entry in entries:
        scenes.setdefault(entry['scene_token'], []).append(entry)
    infos['data_list'] = [
        entry for length, scene in zip(LENGTHS, scenes.values(), strict=True) for entry in scene[:length]
    ]
    dataset = build_dataset(infos, test_mode=True, pipeline=[])
    return dataset, [(scene, frame) for scene, length in enumerate(LENGTHS) for frame in range(length)]


@pytest.fixture
def as_process():
    """Pose as one process of many."""

    def pose(rank, world_size):
        dist.init_process_group('fake', rank=rank, world_size=world_size, store=FakeStore())

    yield pose
    if dist.is_initialized():
        dist.destroy_process_group()


def test_one_process_reads_scene_by_scene(uneven_scenes):
    dataset, frames = uneven_scenes
    sampler = SceneStreamSampler(dataset)
    assert [frames[index] for index in sampler] == frames
    assert len(sampler) == 14


def test_scenes_by_time_even_if_infos_are_not(build_dataset, read_infos):
    infos = read_infos('mini_train')
    infos['data_list'] = infos['data_list'][::-1]
    dataset = build_dataset(infos, test_mode=True, pipeline=[])
    assert list(SceneStreamSampler(dataset)) == [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6]


@pytest.mark.parametrize('world_size', [2, 3, 6])
def test_processes_share_whole_scenes(uneven_scenes, as_process, world_size):
    dataset, frames = uneven_scenes
    drawn = []
    for rank in range(world_size):
        as_process(rank, world_size)
        sampler = SceneStreamSampler(dataset, seed=0)
        dist.destroy_process_group()
        assert len(sampler) == len(list(sampler))
        drawn.append([frames[index] for index in sampler])
    assert sorted(frame for part in drawn for frame in part) == frames
    for part in drawn:
        assert part == sorted(part)
    scenes = [{scene for scene, _ in part} for part in drawn]
    assert sum(map(len, scenes)) == len(LENGTHS)
    sizes = sorted(map(len, drawn))
    assert sizes == {2: [7, 7], 3: [3, 5, 6], 6: [0, 0, 1, 2, 5, 6]}[world_size]


def test_balance_of_many_scenes():
    lengths = [40, 41, 39, 40, 20, 40, 38, 41, 40, 5]
    parts = balance_scenes([[scene] * length for scene, length in enumerate(lengths)], 4)
    assert sorted(scene for part in parts for (scene, *_) in part) == list(range(10))
    sizes = [sum(map(len, part)) for part in parts]
    assert max(sizes) - min(sizes) <= 20


@pytest.mark.parametrize(
    ('batch_size', 'expected'),
    [
        (1, ['00', '01', '02', '03', '04', '05', '10', '11', '20', '21', '22', '23', '24', '30']),
        (2, ['00 10', '01 11', '02 20', '03 21', '04 22', '05 23', '30 24']),
        (3, ['00 10 20', '01 11 21', '02 30 22', '03 23', '04 24', '05']),
        (9, ['00 10 20 30', '01 11 21', '02 22', '03 23', '04 24', '05']),
    ],
)
def test_batches_step_through_scenes(uneven_scenes, batch_size, expected):
    dataset, frames = uneven_scenes
    batches = SceneStreamBatchSampler(SceneStreamSampler(dataset), batch_size)
    given = [' '.join('{}{}'.format(*frames[index]) for index in batch) for batch in batches]
    assert given == expected
    assert len(batches) == len(expected)
    assert given == [' '.join('{}{}'.format(*frames[index]) for index in batch) for batch in batches]


def test_batch_size_must_be_positive(uneven_scenes):
    with pytest.raises(ValueError, match='at least 1, not 0'):
        SceneStreamBatchSampler(SceneStreamSampler(uneven_scenes[0]), 0)


def test_dataloader_of_the_base_config(base_config, synthetic_root, info_files):
    config = base_config.val_dataloader
    config.update(batch_size=2, num_workers=0, persistent_workers=False)
    config.dataset.update(data_root=str(synthetic_root), ann_file=str(info_files['mini_val']))
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        loader = Runner.build_dataloader(config, seed=0)
    drawn = [[(sample.scene_name, sample.frame_idx) for sample in batch['data_samples']] for batch in loader]
    assert drawn == [[('scene-0103', frame), ('scene-0916', frame)] for frame in range(6)]
    assert len(loader) == 6
