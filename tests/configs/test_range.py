"""Model and training data have one range."""

import pytest
import torch
from mmdet3d.registry import DATASETS

from bevformer_plugin.configuration import load_config
from bevformer_plugin.training import check_training
from tests.helpers.repository import CONFIGS, REPO

NANO = CONFIGS / 'bevformer_nano.py'
OVERFIT = REPO / 'projects' / 'real_keyframes' / 'bevformer_nano_overfit.py'


@pytest.mark.parametrize('reach', [102.4, 25.6])
def test_one_line_changes_grid_and_true_boxes(synthetic_root, info_files, tmp_path, reach):
    text = NANO.read_text().replace("'../_base_/", f"'{CONFIGS.parent / '_base_'}/")
    line = next(line for line in text.splitlines() if line.startswith('point_cloud_range = '))
    text = text.replace(line, f'point_cloud_range = [-{reach}, -{reach}, -3.0, {reach}, {reach}, 1.0]')
    (tmp_path / 'nano.py').write_text(text)
    files = {'data_root': str(synthetic_root), 'ann_file': str(info_files['mini_train']), 'filter_empty_gt': False}
    cfg = load_config(str(tmp_path / 'nano.py'))
    check_training(cfg)
    dataset = DATASETS.build({**cfg.train_dataloader.dataset, **files})
    everything = DATASETS.build({**cfg.train_dataloader.dataset, **files, 'point_cloud_range': None})
    kept, all_boxes = (
        torch.cat([part.get_data_info(index)['ann_info']['gt_bboxes_3d'].tensor for index in range(len(part))])
        for part in (dataset, everything)
    )
    within = (all_boxes[:, :2].abs() < reach).all(1)
    assert len(kept) == within.sum() > 0
    assert kept[:, :2].abs().max() < reach
    assert reach > 100 or not within.all()


@pytest.mark.parametrize(
    ('config', 'key', 'changed', 'shown'),
    [
        (NANO, 'model.point_cloud_range', [-20, -20, -3, 20, 20, 1], r'\(-20, -20, -3, 20, 20, 1\)'),
        (NANO, 'train_dataloader.dataset.point_cloud_range', None, 'None'),
        (
            OVERFIT,
            'train_dataloader.dataset.dataset.point_cloud_range',
            [-9, -9, -3, 9, 9, 1],
            r'\(-9, -9, -3, 9, 9, 1\)',
        ),
    ],
)
def test_two_ranges_are_refused(config, key, changed, shown):
    check_training(load_config(str(config)))
    with pytest.raises(ValueError, match=rf'model\.point_cloud_range is .*{shown}.*set both alike'):
        check_training(load_config(str(config), {key: changed}))
