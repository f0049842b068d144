"""GridMask."""

import pytest
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


def published_hidden_share(height: int, width: int) -> float:
    """The share of hidden pixels that the published code has on average, drawn stripe by stripe at ratio 0.5."""
    shares = []
    for period in range(2, height, max(1, height // 80)):
        by_axis = []
        for length in (height, width):
            hidden, step = [], max(1, period // 8)
            for start in range(step // 2, period, step):
                canvas = torch.zeros(int(1.5 * length), dtype=torch.bool)
                for stripe in range(len(canvas) // period):
                    first = period * stripe + start
                    canvas[first : first + int(0.5 * period + 0.5)] = True
                offset = (len(canvas) - length) // 2
                hidden.append(1 - canvas[offset : offset + length].float().mean())
            by_axis.append(sum(hidden) / len(hidden))
        shares.append(by_axis[0] * by_axis[1])  # the two starts are drawn independently
    return float(sum(shares) / len(shares))


@pytest.mark.parametrize(('height', 'width', 'expected'), [(480, 800, 0.266), (60, 100, 0.254)])
def test_hides_as_much_as_the_published_code(height, width, expected):
    published = published_hidden_share(height, width)
    assert published == pytest.approx(expected, abs=0.01)
    torch.manual_seed(0)
    mask = GridMask(prob=1.0, ratio=0.5).train()
    drawn = [1 - float(mask(torch.ones(1, 1, 1, height, width)).mean()) for _ in range(400)]
    error = torch.tensor(drawn).std() / len(drawn) ** 0.5
    assert abs(sum(drawn) / len(drawn) - published) < 4 * error < 0.04


def test_an_odd_period_shows_one_row_more_than_it_hides():
    mask = GridMask(prob=1.0, ratio=0.5)
    hidden = mask._hidden(60, period=5, start=2)
    assert hidden.float().mean() == pytest.approx(2 / 5, abs=0.02)
    runs = hidden.float().diff().nonzero().flatten().diff()
    assert set(runs.tolist()) == {2, 3}


def test_probability():
    torch.manual_seed(0)
    masked = GridMask(prob=0.7).train()(torch.ones(500, 1, 1, 64, 64))
    changed = (masked.amin(dim=(1, 2, 3, 4)) == 0).float().mean()
    assert 0.55 < changed < 0.75  # now and then a grid's squares all lie outside the image
