"""What several sections of a config need is written in one place, and reaches all of them."""

import ast

import pytest
from mmengine.config import Config

from bevformer_plugin.configuration import load_config, packaged_configs
from tests.helpers.repository import REPO

FILES = sorted(file for folder in ('configs', 'projects') for file in (REPO / folder).rglob('*.py'))


def dataset_of(cfg: Config, part: str) -> Config:
    """The multi-camera dataset of a dataloader, which another one may repeat."""
    dataset = cfg[f'{part}_dataloader'].dataset
    return dataset.dataset if dataset.type == 'RepeatDataset' else dataset


@pytest.mark.parametrize('name', packaged_configs())
def test_all_three_datasets_have_the_same_cameras_and_images(name):
    cfg = load_config(name)
    train, val, test = (dataset_of(cfg, part) for part in ('train', 'val', 'test'))
    for setting in ('cameras', 'image_size', 'metainfo', 'data_root', 'true_boxes'):
        assert train.get(setting) == val.get(setting) == test.get(setting), setting
    assert len(train.cameras) == cfg.model.num_cameras and train.image_size
    assert cfg.test_dataloader == cfg.val_dataloader and cfg.test_evaluator == cfg.val_evaluator


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_the_test_sections_are_written_as_those_of_validation(file):
    sections = {
        target.id: statement.value
        for statement in ast.parse(file.read_text()).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    for section in ('dataloader', 'evaluator'):
        assert (f'val_{section}' in sections) == (f'test_{section}' in sections)
        if f'test_{section}' in sections:
            assert ast.unparse(sections[f'test_{section}']) == f'val_{section}'


@pytest.mark.parametrize('name', packaged_configs())
def test_max_epochs_alone_says_when_a_schedule_of_epochs_ends(name):
    by_epoch = [entry for entry in load_config(name).param_scheduler if entry.get('by_epoch', True)]
    assert by_epoch and not any('end' in entry for entry in by_epoch)
