"""What the BEV sees: sampling points of known places, principal components the right way up, and the tool."""

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS

from bevformer_plugin.configuration import load_config
from bevformer_plugin.datasets.infos import load_infos
from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid, pillar_points
from bevformer_plugin.inspection import BEVInspector, SampleEncoder, pillar_view, query_at, recorded_sampling
from bevformer_plugin.inspection.inspector import maps_to_stored
from bevformer_plugin.visualization import (
    FrameSource,
    PillarView,
    draw_bev_features,
    draw_pillar_view,
    principal_colors,
)
from bevformer_plugin.visualization import bev_features as layout
from tests.helpers.processes import NANO, run_tool
from tests.helpers.repository import CONFIGS, NANO_WEIGHTS, REPO

RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
PLACE = (2.0, 20.0)


@pytest.fixture(scope='module')
def source(synthetic_root, info_files):
    return FrameSource(synthetic_root, info_files['mini_val'])


@pytest.fixture(scope='module')
def token(info_files):
    """The second keyframe of the first scene."""
    return load_infos(info_files['mini_val'])['data_list'][1]['token']


@pytest.fixture(scope='module')
def nano(synthetic_root, info_files):
    return SampleEncoder(load_config(REPO / NANO), NANO_WEIGHTS, synthetic_root, info_files['mini_val'])


def random_weights(config, folder):
    torch.manual_seed(0)
    detector = MODELS.build(load_config(config).model)
    path = folder / 'random.pth'
    torch.save({'state_dict': detector.state_dict()}, path)
    return path


def test_queries_of_places():
    grid = BEVGrid(4, 8, RANGE)
    assert query_at(grid, -51.2, -51.2) == 0
    assert query_at(grid, 51.1, -51.1) == 7  # right of the vehicle, behind it
    assert query_at(grid, -51.1, 51.1) == 24  # left, in front
    for x, y in ((51.2, 0), (0, -51.3), (float('nan'), 0), (0, float('inf'))):
        with pytest.raises(InputError, match=r'is no place in the BEV: x goes from -51\.2 to below 51\.2 m'):
            query_at(grid, x, y)


def test_an_encoder_with_known_weights_looks_at_a_known_pixel(nano, source, token, synthetic_root, info_files):
    """Point 2 of head 1 belongs to the third height and lies 3 cells right, 1 cell up; the other heads have theirs."""
    encoder = SampleEncoder(load_config(REPO / NANO), NANO_WEIGHTS, synthetic_root, info_files['mini_val'])
    layers = encoder.detector.bev_encoder.encoder.layers
    for layer in layers:
        core = layer.spatial_cross_attention.deformable_attention
        shape = core.num_heads, core.num_levels, core.num_points
        offsets, weights = torch.zeros(*shape, 2), torch.full(shape, -50.0)
        offsets[1, 0, 2] = torch.tensor([3.0, -1.0])
        weights[1, 0, 2] = 50.0
        weights[[head for head in range(core.num_heads) if head != 1], 0, 0] = 50.0
        with torch.no_grad():
            core.sampling_offsets.weight.zero_(), core.attention_weights.weight.zero_()
            core.sampling_offsets.bias.copy_(offsets.flatten()), core.attention_weights.bias.copy_(weights.flatten())
    encoded = encoder.encode(token, with_sampling=True)
    frame, grid, query = source.frame(token), encoder.grid, query_at(encoder.grid, *PLACE)
    view = pillar_view(encoded.sampling, query, grid, encoded.image_hw, maps_to_stored(encoded, frame))
    assert 'CAM_FRONT' in view.looks and view.num_layers == len(layers)
    look = view.looks['CAM_FRONT']

    image = frame.info['images']['CAM_FRONT']
    point = pillar_points(grid, 4)[2, query].double().numpy()
    u, v, depth = frame.lidar2img('CAM_FRONT') @ [*point, 1]
    pixel = np.array([u, v]) / depth
    assert look.reference_points[2] == pytest.approx(pixel, abs=1e-3)

    network_width, network_height = encoder.dataset.image_size
    height, width = encoded.image_hw
    levels = encoder.detector.extract_feat(torch.zeros(1, 6, 3, height, width))
    cell = np.array([width / levels[0].shape[-1], height / levels[0].shape[-2]])
    to_stored = np.array([image['width'] / network_width, image['height'] / network_height])
    expected = pixel + np.array([3, -1]) * cell * to_stored
    heads = layers[0].spatial_cross_attention.deformable_attention.num_heads
    share = 1 / heads / len(view.looks)
    for points, weights in zip(look.points, look.weights, strict=True):
        looks_there = np.linalg.norm(points - expected, axis=1) < 1e-2
        assert looks_there.sum() == 1 and weights[looks_there] == pytest.approx([share], rel=1e-4)
        assert (weights > 1e-6).sum() == heads


def test_weights_of_a_layer_sum_to_one_over_all_cameras(nano, source, token):
    encoded = nano.encode(token, with_sampling=True)
    assert encoded.num_frames == 2
    maps = maps_to_stored(encoded, source.frame(token))
    seen = set()
    for place in (PLACE, (-20.0, 20.0), (0.0, -30.0), (12.0, 8.0)):
        view = pillar_view(encoded.sampling, query_at(nano.grid, *place), nano.grid, encoded.image_hw, maps)
        assert np.abs(np.subtract(view.centre, place)).max() <= max(view.cell_size) / 2
        for layer in range(view.num_layers):
            assert sum(look.weights[layer].sum() for look in view.looks.values()) == pytest.approx(1, rel=1e-4)
        seen.update(view.looks)
    assert {'CAM_FRONT', 'CAM_FRONT_LEFT', 'CAM_BACK'} <= seen


def test_what_is_recorded_does_not_change_the_bev_and_ends_with_the_block(nano, token):
    encoder = nano.detector.bev_encoder.encoder
    watched, plain = nano.encode(token, with_sampling=True), nano.encode(token)
    assert torch.equal(watched.bev_embed, plain.bev_embed) and plain.sampling == []
    with recorded_sampling(encoder) as records:
        pass
    assert records == []
    assert not any(layer.spatial_cross_attention._forward_pre_hooks for layer in encoder.layers)


def test_a_pillar_that_no_camera_sees_says_so(nano, source, token):
    """Beside the vehicle's middle no camera looks down to the ground."""
    encoded = nano.encode(token, with_sampling=True)
    frame = source.frame(token)
    maps = maps_to_stored(encoded, frame)
    hits = encoded.sampling[0].hits
    blind = sorted(set(range(nano.grid.num_queries)) - set(hits.query_index.tolist()))
    assert blind
    view = pillar_view(encoded.sampling, blind[0], nano.grid, encoded.image_hw, maps)
    assert view.looks == {} and view.summary.startswith('no camera sees the pillar at x ')
    seen = pillar_view(encoded.sampling, query_at(nano.grid, *PLACE), nano.grid, encoded.image_hw, maps)
    assert 'is seen by CAM_FRONT' in seen.summary
    dark, light = (draw_pillar_view(of, RANGE, frame).astype(float) for of in (view, seen))
    front = np.s_[100:300, 700:1200]  # the second of three cameras in the first row
    assert dark[front].mean() < 0.5 * light[front].mean()


def hot_cells(rows, columns):
    features = np.random.default_rng(0).normal(0, 0.01, (32, 32, 8))
    features[rows, columns, 3] += 5
    return features


def brightness(features, frame):
    """Mean brightness of the view of the features in a grid of 4 x 4 parts, the first row on top."""
    picture = draw_bev_features(features, RANGE, frame, 0.3).astype(float).mean(2)
    view = picture[layout.TOP : layout.TOP + layout.SIZE, 95 : 95 + layout.SIZE]
    part = layout.SIZE // 4
    return view.reshape(4, part, 4, part).mean((1, 3))


@pytest.mark.parametrize(
    ('rows', 'columns', 'brightest'),
    [
        (slice(24, 32), slice(8, 16), (0, 1)),  # in front, a little to the left
        (slice(0, 8), slice(16, 24), (3, 2)),  # behind, a little to the right
        (slice(8, 16), slice(24, 32), (2, 3)),  # to the right
    ],
)
def test_which_way_is_up(source, token, rows, columns, brightest):
    parts = brightness(hot_cells(rows, columns), source.frame(token))
    assert np.unravel_index(parts.argmax(), parts.shape) == brightest


def test_principal_components():
    features = hot_cells(slice(0, 2), slice(0, 2))
    colors, shares = principal_colors(features)
    assert colors.shape == (32, 32, 3) and colors.min() >= 0 and colors.max() <= 1
    assert shares[0] > 0.9 and (np.diff(shares) <= 0).all() and shares.sum() <= 1 + 1e-9
    assert colors[0, 0, 0] == 1 and np.median(colors[..., 0]) < 0.6
    assert np.allclose(principal_colors(-features)[0][..., 0], colors[..., 0])  # which sign is chosen is no chance
    assert principal_colors(np.ones((4, 4, 3)))[1].tolist() == [0, 0, 0]
    with pytest.raises(InputError, match='not finite'):
        principal_colors(np.full((4, 4, 3), np.nan))


def test_the_command(synthetic_root, info_files, token, tmp_path):
    where = ('--root', synthetic_root, '--infos', info_files['mini_val'], '--out', tmp_path / 'pictures')
    model = ('--sample', token, '--model', NANO, NANO_WEIGHTS)
    ended = run_tool('visualize', *where, *model, '--bev', '--attention', '2', '20')
    assert ended.returncode == 0, ended.output
    assert 'is seen by CAM_FRONT' in ended.output
    pictures = sorted((tmp_path / 'pictures').iterdir())
    assert [path.name.partition('scene')[0] for path in pictures] == ['attention_2_20_', 'bev_']
    assert all(cv2.imread(str(path)).shape[1] == 1920 for path in pictures)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--model', NANO, NANO_WEIGHTS, '--attention', '60', '0'), 'error: (60, 0) is no place in the BEV'),
        (('--model', NANO, NANO_WEIGHTS, '--attention', 'nan', '0'), 'error: (nan, 0) is no place in the BEV'),
        (('--bev',), '--bev and --attention look into a detector: give --model'),
        (('--model', NANO, NANO_WEIGHTS), '--model has no effect without --bev or --attention'),
        (('--model', NANO, NANO_WEIGHTS, '--bev', '--results', 'r.json'), 'leave --results out'),
        (('--results', 'r.json', '--tracks', 't.json'), 'give either --results or --tracks'),
    ],
)
def test_bad_commands(synthetic_root, info_files, token, tmp_path, options, message):
    where = ('--root', synthetic_root, '--infos', info_files['mini_val'], '--out', tmp_path / 'pictures')
    ended = run_tool('visualize', *where, '--sample', token, *options)
    assert ended.returncode != 0 and message in ended.last_line
    assert 'Traceback' not in ended.output


def test_bevformer_v2(source, info_files, token, tmp_path):
    """The current frame's pass through the encoder is the last one; random weights will do."""
    config = REPO / 'projects/bevformer_v2/bevformer_v2_nano.py'
    weights = random_weights(config, tmp_path)
    inspector = BEVInspector(config, weights, source, info_files['mini_val'], PLACE)
    encoded = inspector.encoder.encode(token, with_sampling=True)
    layers = inspector.encoder.detector.bev_encoder.encoder.layers
    assert len(encoded.sampling) == len(layers)
    meta = torch.from_numpy(np.asarray(encoded.meta['lidar2img']))
    expected = inspector.encoder.detector.frames_of([encoded.meta])[0].lidar2img
    assert torch.allclose(meta.double(), expected)
    view = pillar_view(
        encoded.sampling,
        query_at(inspector.encoder.grid, *PLACE),
        inspector.encoder.grid,
        encoded.image_hw,
        maps_to_stored(encoded, source.frame(token)),
    )
    grid = inspector.encoder.grid
    point = pillar_points(grid, 4)[0, query_at(grid, *PLACE)].double().numpy()
    u, v, depth = source.frame(token).lidar2img('CAM_FRONT') @ [*point, 1]
    lowest = view.looks['CAM_FRONT'].reference_points[0]
    assert lowest == pytest.approx(np.array([u, v]) / depth, abs=1e-2)
    assert len(inspector.draw(token, tmp_path, with_bev=True)) == 2


def test_global_attention_has_no_points(source, info_files, token, tmp_path):
    config = REPO / 'projects/attention/bevformer_nano_global_dot_product.py'
    inspector = BEVInspector(config, random_weights(config, tmp_path), source, info_files['mini_val'], PLACE)
    with pytest.raises(InputError, match='GlobalSpatialCrossAttention, which looks at all features'):
        inspector.draw(token, tmp_path, with_bev=False)


@pytest.mark.slow
def test_tiny_with_random_weights(source, info_files, token, tmp_path):
    config = CONFIGS / 'bevformer_tiny.py'
    inspector = BEVInspector(config, random_weights(config, tmp_path), source, info_files['mini_val'], PLACE)
    paths = inspector.draw(token, tmp_path, with_bev=True)
    assert len(paths) == 2
    assert len(inspector.encoder.encode(token, with_sampling=True).sampling) == 3


def test_a_view_of_nothing_has_a_summary():
    view = PillarView((1.0, 2.0), (3, 4), (0.5, 0.5), 1, {})
    assert view.summary == (
        'no camera sees the pillar at x 1.0 m, y 2.0 m: spatial cross-attention adds nothing but a bias there'
    )
