"""The pictures of the guide to attention show what the layers compute."""

import matplotlib.pyplot as plt
import pytest
import torch

from bevformer_plugin.visualization.attention_figures import (
    POINTS_EACH,
    attention_weights,
    draw_attention_figures,
    draw_masks,
    draw_worked_example,
    front_camera_points,
    self_expression,
    subspace_points,
)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close('all')


def test_every_picture_is_written(tmp_path):
    paths = draw_attention_figures(tmp_path / 'images')
    assert [path.name for path in paths] == ['worked_example.png', 'masks.png', 'sca_forms.png', 'self_expression.png']
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
