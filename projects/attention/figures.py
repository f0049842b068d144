"""The pictures of the guide to attention, whose numbers all come from the layers that they explain."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from bevformer_plugin.geometry import BEVGrid, pillar_points, project_to_cameras
from bevformer_plugin.layers import (
    DeformableAttentionCore,
    ScaledDotProduct,
    attention_pooling,
    causal_mask,
    padding_mask,
)
from bevformer_plugin.synthetic.rig import CAMERA_MOUNTS, LIDAR, Camera, sample_rig

QUERY, KEYS = (1.0, 0.5), ((1.0, 0.5), (0.0, 1.0))  # of the worked example
BLUE, ORANGE, GREY = '#1f6feb', '#e36209', '#6e7781'
FEATURE_HW, STRIDE = (15, 25), 32  # of bevformer_tiny's last feature level, for images of 480 x 800 pixels
GRID = BEVGrid(50, 50, (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0))  # of bevformer_tiny
PILLAR_CELL = (34, 22)  # row and column of the pillar in the picture of SCA: 19 m ahead, 5 m to the left
SUBSPACES, POINTS_EACH = 3, 12  # planes, and points on each, in the picture of self-expression
SINE_POINTS, LARGEST_ERROR = 24, 0.4  # measured points of the sine


def draw_attention_figures(folder: str | Path) -> list[Path]:
    """Write all pictures as PNG files.

    Returns:
        Their paths.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, draw in (
        ('worked_example', draw_worked_example),
        ('masks', draw_masks),
        ('kernel_regression', draw_kernel_regression),
        ('sca_forms', draw_sca_forms),
        ('self_expression', draw_self_expression),
    ):
        figure = draw()
        paths.append(folder / f'{name}.png')
        figure.savefig(paths[-1], dpi=110, facecolor='white')
        plt.close(figure)
    return paths


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the weights (Q, K) of scaled dot-product attention, which are the result of pooling unit vectors."""
    score = ScaledDotProduct(1, query.shape[-1], key.shape[-1])
    return attention_pooling(query[None, None], key[None, None], torch.eye(len(key))[None, None], score, mask)[0, 0]


def draw_worked_example() -> Figure:
    """Draw a query and two keys in the plane, and their scores and weights."""
    query, keys = torch.tensor([QUERY]), torch.tensor(KEYS)
    scores = ScaledDotProduct(1, 2, 2)(query[None], keys[None])[0, 0]
    weights = attention_weights(query, keys)[0]
    figure, (plane, bars) = plt.subplots(1, 2, figsize=(8.4, 3.4), layout='constrained')
    for vector, color, name, width in (
        (keys[0], ORANGE, '$k_1$', 0.022),
        (query[0], BLUE, '$q$', 0.009),
        (keys[1], ORANGE, '$k_2$', 0.022),
    ):
        x, y = vector.tolist()
        plane.quiver(0, 0, x, y, angles='xy', scale_units='xy', scale=1, color=color, width=width)
        plane.annotate(name, (x, y), (x + 0.05, y + (0.05 if name != '$q$' else -0.16)), color=color, fontsize=13)
    plane.set(xlim=(-0.3, 1.4), ylim=(-0.2, 1.3), aspect='equal', title='a query and two keys')
    plane.grid(alpha=0.3)
    for offset, values, color, name in ((-0.2, scores, GREY, 'score'), (0.2, weights, ORANGE, 'weight')):
        drawn = bars.bar(np.arange(2) + offset, values.tolist(), 0.38, color=color, label=name)
        bars.bar_label(drawn, fmt='%.2f')
    bars.set(xticks=[0, 1], xticklabels=['$k_1$', '$k_2$'], ylim=(0, 1.1), title=r'scores $qk/\sqrt{2}$ and softmax')
    bars.legend(frameon=False)
    return figure


def draw_masks() -> Figure:
    """Draw the attention of six queries to six keys without a mask, with two keys of padding, and with causal mask."""
    points = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    masks = {
        'no mask': None,
        'padding mask, 4 real keys': padding_mask(torch.tensor([4]), 6),
        'causal mask': causal_mask(6, 6),
    }
    figure, panels = plt.subplots(1, 3, figsize=(9.6, 3.4), layout='constrained')
    for axes, (title, mask) in zip(panels, masks.items(), strict=True):
        weights = attention_weights(points, points, mask)
        axes.imshow(weights, cmap='Blues', vmin=0, vmax=1)
        for (row, column), weight in np.ndenumerate(weights.numpy()):
            axes.text(
                column,
                row,
                f'{weight:.2f}'.lstrip('0') if weight else '0',
                ha='center',
                va='center',
                fontsize=8,
                color='white' if weight > 0.6 else 'black',
            )
        axes.set(title=title, xlabel='key', ylabel='query', xticks=range(6), yticks=range(6))
    return figure


def noisy_sine() -> tuple[Tensor, Tensor]:
    """Measure a sine at 24 places with errors of up to 0.4, which are uniformly distributed.

    Returns:
        Ascending places (24,) from 0 to 2 pi, and the values (24,) there.
    """
    generator = torch.Generator().manual_seed(1)
    x = (2 * math.pi * torch.rand(SINE_POINTS, generator=generator)).sort().values
    error = LARGEST_ERROR * (2 * torch.rand(SINE_POINTS, generator=generator) - 1)
    return x, x.sin() + error


def kernel_regression(
    query: Tensor, x: Tensor, y: Tensor, width: float | Tensor, mask: Tensor | None = None
) -> Tensor:
    """Estimate values by attention pooling with a Gaussian kernel, which is Nadaraya-Watson regression.

    The score of a query q and a key x is -(q - x)^2 / (2 width^2). Its term in q^2 is the same for all keys, so the
    softmax ignores it; the rest is the inner product of (q, 1) and (x, -x^2 / 2) in units of the width.

    Args:
        query: (Q,) places whose values are sought.
        x: (K,) places whose values are known.
        y: (K, C) their values.
        width: width of the kernel, in the unit of the places; ``math.inf`` gives every point the same weight.
        mask: (Q, K) bool, True for the points that may take part.

    Returns:
        Estimated values (Q, C).
    """
    query, x = query / width, x / width
    # ScaledDotProduct divides scores by the square root of 2, the number of entries of a key.
    queries = math.sqrt(2) * torch.stack([query, torch.ones_like(query)], dim=-1)
    keys = torch.stack([x, -x.square() / 2], dim=-1)
    return attention_pooling(queries[None, None], keys[None, None], y[None, None], ScaledDotProduct(1, 2, 2), mask)[
        0, 0
    ]


def leave_one_out_error(x: Tensor, y: Tensor, width: float | Tensor) -> Tensor:
    """Return the root mean squared error, (), of kernel regression that estimates each of n points from the others."""
    others = ~torch.eye(len(x), dtype=torch.bool)
    return (kernel_regression(x, x, y[:, None], width, others)[:, 0] - y).square().mean().sqrt()


def learned_width(x: Tensor, y: Tensor) -> float:
    """Find the width with the least leave-one-out error for (n,) points by torch's L-BFGS, starting from 1."""
    log_width = torch.zeros((), requires_grad=True)  # the logarithm keeps the width positive
    optimizer = torch.optim.LBFGS([log_width], max_iter=50, line_search_fn='strong_wolfe')

    def loss_with_gradient() -> Tensor:
        optimizer.zero_grad()
        loss = leave_one_out_error(x, y, log_width.exp())
        loss.backward()
        return loss

    optimizer.step(loss_with_gradient)
    return log_width.exp().item()


def draw_kernel_regression() -> Figure:
    """Draw three regressions of a noisy sine: equal weights, a Gaussian kernel of width 1, one of learned width."""
    x, y = noisy_sine()
    places = torch.linspace(0, 2 * math.pi, 200)
    learned = learned_width(x, y)
    figure, panels = plt.subplots(1, 3, figsize=(13.2, 3.6), layout='constrained', width_ratios=(1.5, 1, 1))
    panels[0].plot(places, places.sin(), color='black', lw=1, ls='--', label='truth')
    for width, name, color in (
        (math.inf, 'average', GREY),
        (1.0, 'width 1', BLUE),
        (learned, f'learned width {learned:.2f}', ORANGE),
    ):
        panels[0].plot(places, kernel_regression(places, x, y[:, None], width)[:, 0], color=color, lw=2, label=name)
    panels[0].scatter(x, y, s=16, color='black', zorder=3, label='known points')
    panels[0].set(xlabel='$x$, the query', ylabel='$y$', ylim=(-1.5, 1.9), title='three regressions')
    panels[0].legend(frameon=False, ncols=2, fontsize=8, loc='upper right')
    for axes, width, title in (
        (panels[1], 1.0, 'weights, width 1'),
        (panels[2], learned, f'weights, width {learned:.2f}'),
    ):
        axes.imshow(kernel_regression(places, x, torch.eye(len(x)), width), cmap='Blues', aspect='auto')
        axes.set(title=title, xlabel='known point, by $x$', ylabel='query', xticks=[], yticks=[])
    return figure


def draw_sca_forms() -> Figure:
    """Draw one pillar from above, and where each form of SCA samples the front camera's features for it."""
    points = front_camera_points()
    core = DeformableAttentionCore(256, num_heads=8, num_levels=1, num_points=8)
    offsets = core.predict_sampling(torch.zeros(1, 1, 256))[0][0, 0, :, 0, 0].detach()  # heads x P x 2, in cells
    figure, panels = plt.subplots(1, 4, figsize=(13.2, 3.3), layout='constrained')
    _draw_pillar_from_above(panels[0])
    cells = points * torch.tensor(FEATURE_HW[::-1])  # Dx2
    sampled = {
        'deformable: 8 heads x 8 points': (cells.repeat(2, 1) + offsets).flatten(0, 1),
        'points: 4 heights': cells,
        'global: every feature, of all cameras': torch.cartesian_prod(
            torch.arange(FEATURE_HW[1]) + 0.5, torch.arange(FEATURE_HW[0]) + 0.5
        ),
    }
    for axes, (title, places) in zip(panels[1:], sampled.items(), strict=True):
        axes.vlines(range(FEATURE_HW[1] + 1), 0, FEATURE_HW[0], color=GREY, lw=0.4, alpha=0.5)
        axes.hlines(range(FEATURE_HW[0] + 1), 0, FEATURE_HW[1], color=GREY, lw=0.4, alpha=0.5)
        axes.scatter(*places.T, s=7, color=BLUE, zorder=2)
        axes.scatter(*cells.T, s=34, facecolor='none', edgecolor=ORANGE, linewidth=1.6, zorder=3)
        axes.set(xlim=(0, FEATURE_HW[1]), ylim=(FEATURE_HW[0], 0), aspect='equal', xticks=[], yticks=[], title=title)
    return figure


def front_camera_points() -> Tensor:
    """Project the points of the pillar at ``PILLAR_CELL`` into the front camera of a rig like that of nuScenes.

    Returns:
        (D, 2) x and y as fractions of the image.
    """
    height, width = (STRIDE * cells for cells in FEATURE_HW)
    rig = sample_rig((width, height), np.random.default_rng(0))
    camera = rig['CAM_FRONT']
    assert isinstance(camera, Camera)
    matrix = np.eye(4)
    matrix[:3, :3] = camera.intrinsic
    lidar2img = torch.from_numpy(matrix @ np.linalg.inv(camera.to_ego) @ rig[LIDAR].to_ego)
    reference_points_cam, visible = project_to_cameras(pillar_points(GRID, 4), lidar2img[None, None], (height, width))
    index = PILLAR_CELL[0] * GRID.bev_w + PILLAR_CELL[1]
    assert visible[0, 0, index].all()
    return reference_points_cam[0, 0, index]


def _draw_pillar_from_above(axes: Axes) -> None:
    """Draw the vehicle, the fields of view of its cameras, and the pillar, in metres with x right and y ahead."""
    for mount in CAMERA_MOUNTS.values():
        half_fov = np.arctan(800 / mount.focal)
        for edge in (np.deg2rad(mount.yaw) - half_fov, np.deg2rad(mount.yaw) + half_fov):
            axes.plot([0, -40 * np.sin(edge)], [0, 40 * np.cos(edge)], color=GREY, lw=0.7)
    x, y = pillar_points(GRID, 4)[0, PILLAR_CELL[0] * GRID.bev_w + PILLAR_CELL[1], :2].tolist()
    axes.scatter([x], [y], marker='s', s=30, color=ORANGE, zorder=3)
    axes.annotate(f'pillar at ({x:.0f}, {y:.0f}) m', (x, y), (x - 16, y + 4), color=ORANGE, fontsize=9)
    axes.scatter([0], [0], marker='^', s=60, color=BLUE, zorder=3)
    axes.set(xlim=(-22, 22), ylim=(-14, 30), aspect='equal', title='six cameras from above')


def subspace_points() -> Tensor:
    """Draw 12 random unit vectors on each of three planes through the origin of a space of six dimensions.

    Returns:
        (36, 6), plane after plane.
    """
    generator = torch.Generator().manual_seed(0)
    points = [
        torch.randn(POINTS_EACH, 2, generator=generator) @ torch.randn(2, 6, generator=generator)
        for _ in range(SUBSPACES)
    ]
    return torch.nn.functional.normalize(torch.cat(points), dim=1)


def self_expression(points: Tensor, regularization: float = 0.02) -> Tensor:
    """Express each of (n, ...) points by all others, by ridge regression.

    Returns:
        Coefficients Z (n, n) with zero diagonal, a row for each point.
    """
    coefficients = torch.zeros(len(points), len(points))
    for index, point in enumerate(points):
        others = torch.arange(len(points)) != index
        dictionary = points[others]
        gram = dictionary @ dictionary.T + regularization * torch.eye(len(dictionary))
        coefficients[index, others] = torch.linalg.solve(gram, dictionary @ point)
    return coefficients


def draw_self_expression() -> Figure:
    """Draw which points explain which, for points on three planes, by least squares and by attention."""
    points = subspace_points()
    others = ~torch.eye(len(points), dtype=torch.bool)
    attention = attention_weights(10 * points, points, others)
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 4.1), layout='constrained')
    for axes, matrix, title in (
        (panels[0], self_expression(points).abs(), 'self-expression $|Z|$, $X \\approx ZX$'),
        (panels[1], attention, 'attention, diagonal masked'),
    ):
        axes.imshow(matrix / matrix.max(), cmap='Blues')
        for border in range(POINTS_EACH, len(points), POINTS_EACH):
            axes.axhline(border - 0.5, color=ORANGE, lw=0.8)
            axes.axvline(border - 0.5, color=ORANGE, lw=0.8)
        axes.set(title=title, xticks=[], yticks=[], xlabel='explained by', ylabel='point')
    return figure
