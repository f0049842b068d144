"""Training steps of a released BEVFormerV2 in real runs: both engines, and two processes."""

import pytest
import torch

from tests.helpers.processes import run_tool
from tests.helpers.repository import CONFIGS
from tests.training.training_runs import SGD, final_weights, lightning_steps, mmengine_steps

SMALL = """
_base_ = [{base!r}]
crop = dict(type='CropMultiView', top=32)
load = dict(type='LoadMultiViewImages')
norm_cfg = {norm}
small = dict(num_heads=4, feedforward_channels=48, dropout=0.0)
model = dict(
    grid_mask=None,
    bev_grid=(12, 12),
    img_backbone=dict(depth=18, base_channels=4, norm_cfg=dict(type='BN'), norm_eval=True),
    img_neck=dict(in_channels=[8, 16, 32], out_channels=32),
    bev_encoder=dict(small, encoder=dict(num_layers=1)),
    heads=dict(
        detection=dict(small, decoder=dict(num_layers=2), queries=dict(num_query=20)),
        perspective=dict(num_convs=1, norm_cfg=norm_cfg),
    ),
)
train_dataloader = dict(dataset=dict(image_size=(200, 80), pipeline=[load, crop, *_base_.train_pipeline[2:]]))
val_dataloader = dict(dataset=dict(image_size=(200, 80), pipeline=[load, crop, *_base_.test_pipeline[2:]]))
test_dataloader = val_dataloader
load_from = None
"""


@pytest.fixture(scope='module')
def options(small_options):
    """``--cfg-options`` of one epoch on the tiny world; the schedule ends with it by itself."""
    left_out = ('param_scheduler.1.end', 'model.bev_grid', 'model.heads')
    kept = [option for option in small_options if not option.startswith(left_out) and 'image_size' not in option]
    return [
        *kept,
        *SGD,
        'optim_wrapper.optimizer.lr=0.001',
        'param_scheduler.1.epochs_before_end=1',
        'train_cfg.max_epochs=2',
        'train_cfg.val_interval=2',
    ]


def config(folder, norm: str):
    path = folder / 'small.py'
    path.write_text(SMALL.format(base=str(CONFIGS.parent / 'bevformer_v2' / 't1_base_24e.py'), norm=norm))
    return path


@pytest.mark.slow
@pytest.mark.parametrize('queries', ['LearnedQueries', 'PerspectiveProposals'])
def test_v2_has_equal_losses_under_both_engines(options, tmp_path, queries):
    options = [*options, f'model.heads.detection.queries.type={queries}']
    small, losses = config(tmp_path, "dict(type='BN')"), {}
    for engine, steps in (('lightning', lightning_steps), ('mmengine', mmengine_steps)):
        work_dir = tmp_path / engine
        done = run_tool('train', small, '--engine', engine, '--work-dir', work_dir, '--cfg-options', *options)
        assert done.returncode == 0, done.output
        losses[engine] = [{key: value for key, value in row.items() if 'loss' in key} for row in steps(work_dir)]
    ours, theirs = losses['lightning'], losses['mmengine']
    assert len(ours) == len(theirs) == 24
    assert len(theirs[0]) == 15  # 2 of each decoder layer, 10 of the perspective head, and the sum
    for step, row in enumerate(theirs):
        window = ours[max(0, step - 9) : step + 1]  # MMEngine logs means of ten steps
        means = {name: sum(one[name] for one in window) / len(window) for name in row}
        assert means == pytest.approx(row, rel=1e-4, abs=1e-5), step


@pytest.mark.slow
def test_v2_in_two_processes_trains_like_one_with_twice_the_batch(options, tmp_path):
    """But for the statistics of batch norms, which SyncBN alone shares, and on GPUs alone: here are group norms."""
    small = config(tmp_path, "dict(type='GN', num_groups=4)")
    first, second = final_weights(small, tmp_path / 'two', options, processes=2, batch_size=1)
    (one,) = final_weights(small, tmp_path / 'one', options, processes=1, batch_size=2)
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.testing.assert_close(first, one, rtol=1e-5, atol=1e-5)
