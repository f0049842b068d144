"""The pictures of the guide to attention show what the layers compute."""

import math
import os
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from projects.attention.figures import (
    POINTS_EACH,
    attention_weights,
    draw_attention_figures,
    draw_kernel_regression,
    draw_masks,
    draw_worked_example,
    front_camera_points,
    kernel_regression,
    learned_width,
    leave_one_out_error,
    noisy_sine,
    self_expression,
    subspace_points,
)
from tests.helpers.repository import REPO


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close('all')


def test_every_picture_is_written(tmp_path):
    paths = draw_attention_figures(tmp_path / 'images')
    assert [path.name for path in paths] == [
        'worked_example.png',
        'masks.png',
        'kernel_regression.png',
        'sca_forms.png',
        'self_expression.png',
    ]
    for path in paths:
        assert plt.imread(path)[..., :3].std() > 0.05


def test_the_worked_example_shows_scores_and_weights():
    shown = [text.get_text() for text in draw_worked_example().axes[1].texts]
    assert shown == ['0.88', '0.35', '0.63', '0.37']


def test_masked_keys_have_no_weight():
    free, padded, causal = ([float(text.get_text()) for text in axes.texts] for axes in draw_masks().axes)
    assert min(free) > 0
    assert [weight > 0 for weight in padded] == [column < 4 for row in range(6) for column in range(6)]
    assert [weight > 0 for weight in causal] == [column <= row for row in range(6) for column in range(6)]


@pytest.mark.parametrize('width', [0.3, 1.0, 2.5])
def test_kernel_regression_is_the_mean_weighted_by_a_gaussian(width):
    x, y = (values.double() for values in noisy_sine())
    places = torch.linspace(-1, 7, 9).double()
    kernel = torch.exp(-0.5 * ((places[:, None] - x) / width) ** 2)
    expected = (kernel @ y) / kernel.sum(1)
    torch.testing.assert_close(kernel_regression(places, x, y[:, None], width)[:, 0], expected)


def test_an_endless_width_is_the_average():
    x, y = noisy_sine()
    averages = kernel_regression(torch.tensor([0.0, 5.0]), x, y[:, None], math.inf)
    torch.testing.assert_close(averages, y.mean().expand(2, 1))


def test_no_width_answers_better_for_points_left_out_than_the_learned_one():
    x, y = noisy_sine()
    learned = learned_width(x, y)
    widths = torch.arange(0.1, 2.0, 0.01)
    errors = torch.stack([leave_one_out_error(x, y, width) for width in widths])
    assert learned == pytest.approx(widths[errors.argmin()].item(), abs=0.011)
    assert leave_one_out_error(x, y, learned) < errors.min() + 1e-5


def test_the_drawn_regressions_are_ever_nearer_to_the_truth():
    lines = {line.get_label(): line.get_ydata() for line in draw_kernel_regression().axes[0].lines}
    truth = lines.pop('truth')
    assert list(lines) == ['average', 'width 1', 'learned width 0.45']
    errors = [np.sqrt(np.mean((np.asarray(drawn) - np.asarray(truth)) ** 2)) for drawn in lines.values()]
    assert errors == pytest.approx([0.71, 0.31, 0.10], abs=0.01)


def test_the_drawn_weights_of_a_query_sum_to_one():
    for axes in draw_kernel_regression().axes[1:]:
        weights = axes.images[0].get_array()
        assert weights.shape == (200, 24)
        np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)


def test_a_pillar_is_four_points_above_one_another():
    x, y = front_camera_points().T
    assert (x.max() - x.min()) < 0.02
    assert (y.diff() < 0).all()  # the higher, the further up in the image


def test_attention_weights_are_those_of_the_formula():
    points = subspace_points()
    torch.testing.assert_close(attention_weights(points, points), (points @ points.T / 6**0.5).softmax(-1))


def test_self_expression_explains_points_by_their_plane():
    points = subspace_points()
    coefficients = self_expression(points)
    assert (coefficients.diagonal() == 0).all()
    assert (coefficients @ points - points).norm(dim=1).max() < 0.1
    plane = torch.arange(len(points)) // POINTS_EACH
    within = coefficients.abs() * (plane[:, None] == plane)
    assert within.sum() > 0.6 * coefficients.abs().sum()


def test_the_command_runs_from_the_repository():
    command = [sys.executable, 'projects/attention/draw_figures.py', '--help']
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '--out' in done.stdout
