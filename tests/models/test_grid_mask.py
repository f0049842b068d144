"""GridMask."""

import torch

from bevformer_plugin.models import GridMask


def test_masks_squares_in_training_only():
    mask = GridMask(prob=1.0, ratio=0.5)
    imgs = torch.ones(4, 3, 3, 64, 96)
    assert torch.equal(mask.eval()(imgs), imgs)
    torch.manual_seed(1)
    masked = mask.train()(imgs)
    assert set(masked.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(masked, masked[:, :1, :1].expand_as(masked))  # the cameras of a sample share a pattern
    assert not torch.equal(masked[0], masked[1])
    kept = masked[:, 0, 0]
    for sample in kept:
        rows = sample.amin(1) == 0  # the rows that hold a hidden square all hide the same columns
        assert rows.any()
        assert torch.equal(sample[rows], sample[rows][:1].expand(int(rows.sum()), -1))


def test_hides_a_quarter_on_average():
    torch.manual_seed(0)
    kept = GridMask(prob=1.0, ratio=0.5).train()(torch.ones(600, 1, 1, 64, 64)).mean()
    assert abs(kept - 0.75) < 0.03


def test_probability():
    torch.manual_seed(0)
    masked = GridMask(prob=0.7).train()(torch.ones(500, 1, 1, 64, 64))
    changed = (masked.amin(dim=(1, 2, 3, 4)) == 0).float().mean()
    assert 0.55 < changed < 0.75  # now and then a grid's squares all lie outside the image
