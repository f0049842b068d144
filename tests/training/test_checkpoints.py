"""Checkpoints that are whole, foreign, damaged or interrupted."""

import os

import pytest
import torch
from torch import nn

from bevformer_plugin.training.callbacks import BestCheckpoint
from bevformer_plugin.training.checkpoints import AtomicCheckpointIO, newest_checkpoint
from bevformer_plugin.weights import load_weights, read_checkpoint


def test_weights_are_loaded_whole_or_not_at_all(tmp_path):
    model, other = nn.Linear(2, 3), nn.Sequential(nn.Linear(2, 3))
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'wrapped.pth')
    torch.save(other.state_dict(), tmp_path / 'other.pth')
    torch.save(nn.Linear(2, 4).state_dict(), tmp_path / 'wide.pth')
    fresh = nn.Linear(2, 3)
    load_weights(fresh, str(tmp_path / 'wrapped.pth'))
    assert torch.equal(fresh.weight, model.weight)
    with pytest.raises(ValueError, match=r'another model: 2 missing \(first: bias, weight\); 2 unexpected'):
        load_weights(fresh, str(tmp_path / 'other.pth'))
    with pytest.raises(ValueError, match=r'of another shape .*\(4, 2\) in the file, \(3, 2\) in the model'):
        load_weights(fresh, str(tmp_path / 'wide.pth'))
    assert torch.equal(fresh.weight, model.weight)


def test_an_interrupted_write_leaves_the_older_checkpoint(tmp_path):
    class Interrupts:
        def __reduce__(self):
            raise KeyboardInterrupt

    path = tmp_path / 'last.ckpt'
    AtomicCheckpointIO().save_checkpoint({'epoch': 1}, str(path))
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({'epoch': 2, 'state': Interrupts()}, str(path))
    assert read_checkpoint(str(path)) == {'epoch': 1}
    assert [file.name for file in tmp_path.iterdir()] == ['last.ckpt']


def test_damaged_checkpoints_are_named_and_passed_over(tmp_path):
    torch.save({'epoch': 1}, tmp_path / 'best_NDS.ckpt')
    torch.save({'epoch': 2, 'weight': torch.zeros(1000)}, tmp_path / 'last.ckpt')
    (tmp_path / 'last.ckpt').write_bytes((tmp_path / 'last.ckpt').read_bytes()[:1500])
    torch.save({'epoch': 3}, tmp_path / 'not_finite.ckpt')
    with pytest.raises(ValueError, match=r'last\.ckpt is damaged'):
        read_checkpoint(str(tmp_path / 'last.ckpt'))
    assert newest_checkpoint(tmp_path) == str(tmp_path / 'best_NDS.ckpt')
    (tmp_path / 'best_NDS.ckpt').unlink()
    with pytest.raises(FileNotFoundError, match='nothing to resume'):
        newest_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ('score', 'name'),
    [
        ('nuscenes/NDS', 'best_NDS.ckpt'),
        ('map/paper/mIoU@0.5', 'best_paper_mIoU@0.5.ckpt'),
        ('map/lss/car@0.5/0-20m', 'best_lss_car@0.5_0-20m.ckpt'),
        ('loss', 'best_loss.ckpt'),
    ],
)
def test_the_best_checkpoint_is_named_by_its_score_and_found(tmp_path, score, name):
    assert BestCheckpoint(tmp_path, score).format_checkpoint_name({}) == str(tmp_path / name)
    torch.save({'epoch': 1}, tmp_path / name)
    assert newest_checkpoint(tmp_path) == str(tmp_path / name)


def test_mmengines_newest_whole_checkpoint_is_found(tmp_path):
    for epoch in (1, 2):
        torch.save({'epoch': epoch, 'weight': torch.zeros(1000)}, tmp_path / f'epoch_{epoch}.pth')
        os.utime(tmp_path / f'epoch_{epoch}.pth', (epoch, epoch))
    patterns = ('epoch_*.pth', 'iter_*.pth')
    assert newest_checkpoint(tmp_path, patterns) == str(tmp_path / 'epoch_2.pth')
    (tmp_path / 'epoch_2.pth').write_bytes((tmp_path / 'epoch_2.pth').read_bytes()[:1500])
    assert newest_checkpoint(tmp_path, patterns) == str(tmp_path / 'epoch_1.pth')
    with pytest.raises(FileNotFoundError, match=r'no readable last\.ckpt or best_\*\.ckpt'):
        newest_checkpoint(tmp_path)
