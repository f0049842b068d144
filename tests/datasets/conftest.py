"""Datasets on the infos of the synthetic world."""

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from bevformer_plugin.datasets import NuScenesTemporalDataset
from tests.helpers.info_files import write_infos
from tests.helpers.repository import REPO

LOAD_AND_PACK = [
    {'type': 'LoadMultiViewImages'},
    {'type': 'ResizeMultiView'},
    {'type': 'LoadAnnotations3D', 'with_bbox_3d': True, 'with_label_3d': True},
    {'type': 'PackTemporalInputs'},
]


@pytest.fixture
def base_config():
    """``configs/_base_/nuscenes.py``."""
    return Config.fromfile(REPO / 'configs' / '_base_' / 'nuscenes.py')


@pytest.fixture
def build_dataset(synthetic_root, info_files, tmp_path):
    """Build a dataset on the training infos, or on other ``infos``; arguments as those of the class."""

    def build(infos=None, split='mini_train', pipeline=LOAD_AND_PACK, **arguments):
        ann_file = info_files[split]
        if infos is not None:
            ann_file = write_infos(tmp_path / 'infos.pkl', infos)
        with DefaultScope.overwrite_default_scope('mmdet3d'):
            return NuScenesTemporalDataset(
                **{'data_root': str(synthetic_root), 'ann_file': str(ann_file), 'pipeline': pipeline, **arguments}
            )

    return build
