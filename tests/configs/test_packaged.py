"""Configs that are installed with the package are found by their names, as by any path, and by every tool."""

import pytest

from bevformer_plugin.configuration import load_config, packaged_configs
from bevformer_plugin.errors import InputError
from tests.helpers.processes import run_tool
from tests.helpers.repository import REPO


def test_all_configs_of_the_repository_are_packaged():
    configs, projects = REPO / 'configs', REPO / 'projects'
    found = {
        *(file.relative_to(configs) for file in configs.rglob('*.py') if file.parent.name != '_base_'),
        *(file.relative_to(REPO) for file in projects.glob('*/*.py') if '\n_base_ = ' in f'\n{file.read_text()}'),
    }
    assert {f'{name}.py' for name in packaged_configs()} == {str(file) for file in found}
    assert len(found) > 20


@pytest.mark.parametrize(
    ('name', 'path'),
    [
        ('bevformer/bevformer_tiny', 'configs/bevformer/bevformer_tiny.py'),
        ('bevformer/bevformer_tiny.py', 'configs/bevformer/bevformer_tiny.py'),
        ('bevformer/ablations/bevformer_base_points', 'configs/bevformer/ablations/bevformer_base_points.py'),
        ('projects/bevformer/bevformer_tiny_200_steps', 'projects/bevformer/bevformer_tiny_200_steps.py'),
    ],
)
def test_a_name_means_the_config_of_the_repository(name, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(name).to_dict() == load_config(str(REPO / path)).to_dict()


@pytest.mark.parametrize('name', ['bevformer/bevformer_tiny', 'bevformer/bevformer_tiny.py'])
def test_a_file_on_disk_wins(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packaged = load_config(name)
    (tmp_path / 'bevformer').mkdir()
    (tmp_path / 'bevformer' / 'bevformer_tiny.py').write_text(
        f"_base_ = '{packaged.filename}'\nmodel = dict(max_time_gap=7.0)\n"
    )
    assert load_config(name).model.max_time_gap == 7.0 and 'max_time_gap' not in packaged.model


@pytest.mark.parametrize(
    'name', ['bevformer_tiny', 'bevformer/bevformr_tiny.py', 'configs/bevformer/bevformer_tiny.py']
)
def test_similar_names_are_listed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f'config {name} does not exist.*similar ones are bevformer/bevformer_tiny'):
        load_config(name)


def test_where_nothing_is_similar_the_folder_is_named():
    with pytest.raises(InputError, match=r'config yolo does not exist.*lie in .*bevformer_plugin/\.mim$'):
        load_config('yolo')


def test_parts_of_configs_have_no_names():
    with pytest.raises(InputError, match='config _base_/runtime does not exist'):
        load_config('_base_/runtime')


def test_a_base_config_that_mmengine_does_not_find_is_told(tmp_path):
    (tmp_path / 'child.py').write_text("_base_ = 'bevformer_plugin::bevformer/bevformer_tiny.py'\n")
    with pytest.raises(
        InputError, match=r'child\.py cannot be read: .* does not support to load bevformer_plugin config'
    ):
        load_config(str(tmp_path / 'child'))


@pytest.mark.parametrize(
    'command',
    [
        ('train', '{}'),
        ('test', '{}', 'any.ckpt'),
        ('study', '{}', '--work-dir', 'study'),
        ('convert_checkpoint', 'any.pth', 'ours.pth', '--config', '{}'),
        ('benchmark', 'speed', '{}'),
        ('benchmark', 'data', '{}'),
        ('benchmark', 'memory', '{}'),
    ],
    ids=' '.join,
)
def test_every_tool_takes_a_name(command):
    done = run_tool(*(part.format('bevformer/bevformer_tny') for part in command))
    assert done.returncode == 1
    assert done.last_line.startswith('error: config bevformer/bevformer_tny does not exist')
    assert 'similar ones are bevformer/bevformer_tiny' in done.last_line
