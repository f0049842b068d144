"""Which scenes become training, validation and test infos: nuScenes' splits, and files of splits for own scenes."""

import json

import pytest
from nuscenes.utils.splits import create_splits_scenes

from bevformer_plugin.datasets.infos import create_nuscenes_infos, find_splits, load_infos
from bevformer_plugin.datasets.infos.splits import default_split, recognise_split
from tests.helpers.processes import run_tool

VERSION = 'v1.0-mini'


@pytest.fixture
def own_scenes(copied_root, change_table):
    """Four scenes named drive_0 to drive_3."""
    change_table('scene', lambda rows: [{**row, 'name': f'drive_{index}'} for index, row in enumerate(rows)])
    return copied_root


def scene_names(path):
    return {entry['scene_name'] for entry in load_infos(path)['data_list']}


def test_own_scenes_by_the_devkits_file(own_scenes, capsys):
    splits = {'my_train': ['drive_0', 'drive_9'], 'my_val': ['drive_1', 'drive_2'], 'night': ['drive_2']}
    (own_scenes / VERSION / 'splits.json').write_text(json.dumps(splits))
    files = create_nuscenes_infos(own_scenes, VERSION, workers=1)
    assert {split: path.name for split, path in files.items()} == {
        'my_train': 'nuscenes_infos_temporal_train.pkl',
        'my_val': 'nuscenes_infos_temporal_val.pkl',
    }
    assert scene_names(files['my_train']) == {'drive_0'}
    assert scene_names(files['my_val']) == {'drive_1', 'drive_2'}
    metainfo = load_infos(files['my_val'])['metainfo']
    assert (metainfo['split'], sorted(metainfo['scenes'])) == ('my_val', ['drive_1', 'drive_2'])
    said = capsys.readouterr().out
    assert 'splits.json: my_train for train, my_val for val; not used: night' in said
    assert '1 scenes belong to no split' in said and 'left out: drive_3' in said
    assert 'my_train: 1 of its scenes are not in the tables: drive_9' in said


def test_own_version_and_a_file_elsewhere(own_scenes, tmp_path):
    (own_scenes / VERSION).rename(own_scenes / 'city-2')
    with pytest.raises(ValueError, match=r'nuScenes has no version city-2.*city-2/splits\.json or give --splits'):
        create_nuscenes_infos(own_scenes, 'city-2', workers=1)
    splits = tmp_path / 'splits.json'
    splits.write_text(json.dumps({'train': ['drive_0'], 'val': ['drive_1']}))
    more = ('--splits', splits, '--workers', 1)
    done = run_tool('create_data', 'nuscenes', '--root', own_scenes, '--version', 'city-2', *more)
    assert done.returncode == 0, done.output
    path = own_scenes / 'nuscenes_infos_temporal_val.pkl'
    assert scene_names(path) == {'drive_1'} and load_infos(path)['metainfo']['version'] == 'city-2'


def test_own_scenes_without_a_file(own_scenes):
    message = (
        r'none of the scenes .*drive_0, drive_1, drive_2, drive_3.*mini_train, mini_val of nuScenes: give --splits'
    )
    with pytest.raises(ValueError, match=message):
        create_nuscenes_infos(own_scenes, VERSION, workers=1)


def test_one_own_scene_among_official_ones_is_named(copied_root, change_table, capsys):
    change_table(
        'scene',
        lambda rows: [{**row, 'name': 'drive_1' if row['name'] == 'scene-0916' else row['name']} for row in rows],
    )
    files = create_nuscenes_infos(copied_root, VERSION, workers=1)
    assert scene_names(files['mini_val']) == {'scene-0103'}
    assert '1 scenes belong to no split of nuScenes and are left out: drive_1' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"train": ', 'is not JSON'),
        ('[]', 'no JSON object'),
        ('{}', 'no JSON object'),
        ('{"my_train": "drive_0"}', "split 'my_train' is no list of scene names"),
        ('{"my_train": [1]}', "split 'my_train' is no list of scene names"),
        ('{"my_train": ["a", "a"]}', 'split my_train names scene a twice'),
        ('{"night": ["a"]}', 'has night: name a split so that it ends in train, val or test'),
        ('{"a_train": ["a"], "b_train": ["b"]}', 'several splits for train: a_train, b_train; leave one'),
        ('{"my_train": ["a", "b"], "my_val": ["b"]}', 'scene b is in my_train and in my_val'),
        ('{"mini_val": ["a"]}', 'gives split mini_val other scenes than nuScenes.*my_mini_val'),
    ],
)
def test_unusable_files(tmp_path, content, message):
    path = tmp_path / 'splits.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        find_splits(tmp_path, VERSION, path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no splits file .*nowhere\.json'):
        find_splits(tmp_path, VERSION, tmp_path / 'nowhere.json')


def test_official_splits(tmp_path):
    for version, default in (('v1.0-mini', 'mini_val'), ('v1.0-trainval', 'val'), ('v1.0-test', 'test')):
        splits = find_splits(tmp_path, version)
        assert default_split(splits.roles) == default
        assert splits.scenes[default] == create_splits_scenes()[default]
    assert recognise_split(['scene-0103'], 'v1.0-mini') == 'mini_val'
    assert recognise_split(['scene-0103'], 'v1.0-trainval') == 'val'
    assert recognise_split(['drive_0'], 'v1.0-trainval') is None
