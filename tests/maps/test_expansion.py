"""Reading map expansions, and the one that a synthetic world writes."""

import json
import os
import time

import matplotlib
import numpy as np
import pytest
from nuscenes.utils.geometry_utils import transform_matrix
from pyquaternion import Quaternion

from bevformer_plugin.maps import PROTOCOLS, Footprints, find_protocol, map_labels, plane_to_global, read_expansion
from bevformer_plugin.maps.expansion import AREAS, LINES
from bevformer_plugin.synthetic import build_scenario
from bevformer_plugin.synthetic.ground import ASPHALT, BAY, JOINT, PAVED, RESOLUTION, WHITE, YELLOW
from bevformer_plugin.synthetic.map_expansion import LOCATIONS, place_scenes
from bevformer_plugin.synthetic.rendering import SceneRenderer
from tests.conftest import SYNTHETIC_WORLD
from tests.helpers.map_files import ExpansionFile

EVERYWHERE = (-1e9, -1e9, 1e9, 1e9)
SQUARE = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])
NO_BOXES = Footprints.of_boxes(np.zeros((0, 7)), np.array([], dtype=str), np.array([], dtype=int))


@pytest.fixture
def file(tmp_path):
    """An expansion with a square that has a hole, and a line; ``read`` reads some of its layers."""
    file = ExpansionFile()
    file.add_area('walkway', [SQUARE[::-1], SQUARE / 4 + 1])
    file.add_line('lane_divider', SQUARE[:2])
    return file


def read(root, *layers):
    return read_expansion(root, 'boston-seaport', layers, 'a test')


def test_rings_have_one_sense_of_rotation(file, tmp_path):
    file.write(tmp_path)
    outline, hole = read(tmp_path, 'walkway').shapes(['walkway'], EVERYWHERE)
    assert _area(outline) == pytest.approx(16) and _area(hole) == pytest.approx(-1)
    (line,) = read(tmp_path, 'lane_divider').shapes(['lane_divider'], EVERYWHERE)
    np.testing.assert_array_equal(line, SQUARE[:2])


def _area(ring):
    x, y = ring.T
    return (np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def test_only_what_may_reach_into_the_bounds_is_given(file, tmp_path):
    file.add_area('walkway', [SQUARE + 100])
    file.write(tmp_path)
    expansion = read(tmp_path, 'walkway')
    assert len(expansion.shapes(['walkway'], (-5.0, -5.0, 1.0, 1.0))) == 2
    assert len(expansion.shapes(['walkway'], (99.0, 99.0, 101.0, 101.0))) == 1
    assert not expansion.shapes(['walkway'], (50.0, 50.0, 60.0, 60.0))


def test_an_outline_that_crosses_itself_covers_both_its_loops(file, tmp_path):
    file.add_area('carpark_area', [SQUARE[[0, 1, 3, 2]]])
    file.write(tmp_path)
    rings = read(tmp_path, 'carpark_area').shapes(['carpark_area'], EVERYWHERE)
    assert sorted(_area(ring) for ring in rings) == pytest.approx([4, 4])


def test_lines_without_points_are_left_out(file, tmp_path):
    file.add_line('road_divider', np.zeros((0, 2)))
    file.add_line('road_divider', SQUARE)
    file.write(tmp_path)
    assert len(read(tmp_path, 'road_divider').shapes(['road_divider'], EVERYWHERE)) == 1


def test_a_file_that_was_replaced_is_read_again(file, tmp_path):
    changed = file.write(tmp_path).stat().st_mtime_ns
    assert len(read(tmp_path, 'walkway').shapes(['walkway'], EVERYWHERE)) == 2
    file.add_area('walkway', [SQUARE])
    os.utime(file.write(tmp_path), ns=(changed + 1, changed + 1))
    assert len(read(tmp_path, 'walkway').shapes(['walkway'], EVERYWHERE)) == 3


def test_a_missing_file_is_named_with_its_place(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        read(tmp_path, 'walkway')
    for part in ('maps/expansion/boston-seaport.json', 'a test needs', 'Map expansion pack (v1.3)', str(tmp_path)):
        assert part in str(error.value)


def test_a_location_that_nuscenes_does_not_have_gets_another_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'expansion/synthetic\.json.* has maps of boston-seaport, .* only'):
        read_expansion(tmp_path, 'synthetic', ['walkway'], 'a test')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda content: content.update(version='1.2'), 'of version 1.2, not 1.3'),
        (lambda content: content.pop('version'), 'of version 1.0, not 1.3'),
        (lambda content: content.pop('walkway'), 'lacks walkway'),
        (lambda content: content.pop('node'), 'lacks node'),
        (lambda content: content['node'].pop(), "is broken .KeyError: 'node"),
        (lambda content: content['polygon'].clear(), 'is broken .KeyError'),
        (lambda content: content['node'][0].update(x=float('nan')), 'a node is not finite'),
        (lambda content: content['node'][0].update(x='here'), 'is broken .ValueError'),
    ],
)
def test_broken_files_are_refused(file, tmp_path, change, message):
    change(file.content)
    file.write(tmp_path)
    with pytest.raises(ValueError, match=message):
        read(tmp_path, 'walkway', 'lane_divider')


def test_a_file_that_is_no_json_is_refused(file, tmp_path):
    file.write(tmp_path).write_text('{"version"')
    with pytest.raises(ValueError, match='is not JSON'):
        read(tmp_path, 'walkway')


def poses(tables, scene):
    """Vehicle and LiDAR mount, (4, 4) each, of a scene's first keyframe."""
    record = tables.get('sample_data', tables.get('sample', scene['first_sample_token'])['data']['LIDAR_TOP'])
    rows = (
        tables.get('ego_pose', record['ego_pose_token']),
        tables.get('calibrated_sensor', record['calibrated_sensor_token']),
    )
    return tuple(transform_matrix(row['translation'], Quaternion(row['rotation'])) for row in rows)


@pytest.fixture(scope='module')
def scenes(tables):
    """Of every scene its row, its scenario and where it lies."""
    size = SYNTHETIC_WORLD['image_size']
    scenarios = [build_scenario(row['name'], k, 6, 0, size) for k, row in enumerate(tables.scene)]
    return list(zip(tables.scene, scenarios, place_scenes([one.map_size for one in scenarios]), strict=True))


def test_the_expansion_agrees_with_what_is_painted(tables, synthetic_root, scenes):
    protocol = find_protocol('bevfusion')
    reach, cell = 50.0, protocol.grid.cell_x
    y, x = np.meshgrid(*[(np.arange(200) + 0.5) * cell - reach] * 2, indexing='ij')
    crossed: list[np.ndarray] = []
    for row, scenario, place in scenes:
        assert tables.get('log', row['log_token'])['location'] == place.location
        ego2global, lidar2ego = poses(tables, row)
        expansion = read_expansion(synthetic_root, place.location, protocol.areas + protocol.lines, 'a test')
        labels = dict(
            zip(protocol.class_names, map_labels(protocol, expansion, NO_BOXES, ego2global, lidar2ego), strict=True)
        )
        plane = plane_to_global('lidar', ego2global, lidar2ego)
        places = np.stack([x, y], axis=-1) @ plane[:, :2].T + plane[:, 2] - place.corner
        column, line = np.floor(places / RESOLUTION).astype(int).T
        painted = SceneRenderer(scenario, SYNTHETIC_WORLD['image_size'], 0).labels[line, column].T
        assert _iou(labels['drivable_area'] == 1, painted >= ASPHALT) >= 0.97
        assert _iou(labels['walkway'] == 1, (painted == PAVED) | (painted == JOINT)) >= 0.95
        assert (painted[labels['carpark_area'] == 1] >= BAY).mean() > 0.98
        crossed.append(painted[labels['ped_crossing'] == 1] == WHITE)
    assert 0.4 < np.concatenate(crossed).mean() < 0.7  # bars of half a metre, half a metre apart


def _iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_dividers_lie_on_painted_lines(tables, synthetic_root, scenes):
    for _, scenario, place in scenes:
        labels = SceneRenderer(scenario, SYNTHETIC_WORLD['image_size'], 0).labels
        expansion = read_expansion(synthetic_root, place.location, LINES, 'a test')
        for layer, colour, least in (('road_divider', YELLOW, 0.95), ('lane_divider', WHITE, 0.75)):
            points = np.concatenate(expansion.shapes([layer], EVERYWHERE)) - place.corner
            near = [
                colour in labels[max(r - 3, 0) : r + 4, max(c - 3, 0) : c + 4]
                for c, r in np.floor(points / RESOLUTION).astype(int)
            ]
            assert np.mean(near) > least, layer


def test_the_devkit_opens_the_expansion(tables, synthetic_root, scenes):
    with matplotlib.rc_context():  # importing it changes the style of all pictures
        from nuscenes.map_expansion.map_api import NuScenesMap
    for row, _, place in scenes:
        devkit_map = NuScenesMap(str(synthetic_root), place.location)
        x, y, _ = poses(tables, row)[0][:3, 3]
        assert devkit_map.layers_on_point(x, y)['drivable_area'] and devkit_map.layers_on_point(x, y)['lane']
        found = devkit_map.explorer.get_records_in_patch((x - 50, y - 50, x + 50, y + 50), mode='intersect')
        for layer in ('road_segment', 'walkway', 'carpark_area', 'road_divider', 'lane_divider'):
            assert found[layer], layer
        ours = read_expansion(synthetic_root, place.location, AREAS, 'a test')
        for layer in AREAS:
            tokens = [
                token
                for record in getattr(devkit_map, layer)
                for token in record.get('polygon_tokens', [record.get('polygon_token')])
            ]
            theirs = sum(devkit_map.extract_polygon(token).area for token in tokens)
            assert sum(map(_area, ours.shapes([layer], EVERYWHERE))) == pytest.approx(theirs), layer


def test_scenes_of_a_location_do_not_overlap():
    rng = np.random.default_rng(0)
    sizes = [tuple(size) for size in rng.uniform(170, 400, (39, 2))]
    places = place_scenes(sizes)
    assert [place.location for place in places[:5]] == [*LOCATIONS, LOCATIONS[0]]
    assert all(place.corner == (0, 0) for place in places[:4])
    for index, (one, size) in enumerate(zip(places, sizes, strict=True)):
        for other, other_size in list(zip(places, sizes, strict=True))[:index]:
            if one.location == other.location:
                apart = [
                    a + length <= b or b + other_length <= a
                    for a, b, length, other_length in zip(one.corner, other.corner, size, other_size, strict=True)
                ]
                assert any(apart)


def test_a_place_shifts_tables_only(tmp_path):
    """The fifth scene shares the location of the first; relative to its corner all is as in its scenario."""
    from nuscenes import NuScenes

    from bevformer_plugin.synthetic import create_synthetic_world

    create_synthetic_world(tmp_path / 'world', 4, 1, 2, seed=3, image_size=(96, 54), workers=1)
    tables = NuScenes('v1.0-mini', str(tmp_path / 'world'), verbose=False)
    row = tables.scene[4]
    scenario = build_scenario(row['name'], 4, 2, 3, (96, 54))
    sample = tables.get('sample', row['first_sample_token'])
    location = tables.get('log', row['log_token'])['location']
    assert location == tables.get('log', tables.scene[0]['log_token'])['location'] == LOCATIONS[0]
    pose = tables.get('ego_pose', tables.get('sample_data', sample['data']['LIDAR_TOP'])['ego_pose_token'])
    corner = np.array(pose['translation'][:2]) - scenario.ego_poses(scenario.keyframes[:1])[0, :2]
    np.testing.assert_allclose(corner, corner.round(), atol=1e-9)
    assert corner[0] > 100 and corner[1] == pytest.approx(0)
    actors = scenario.actor_poses(int(scenario.keyframes[0]))[:, :2]
    for token in sample['anns']:
        place = np.array(tables.get('sample_annotation', token)['translation'][:2]) - corner
        assert np.linalg.norm(actors - place, axis=1).min() < 2e-3
    mask = tables.get('map', tables.get('log', row['log_token'])['map_token'])['mask']
    assert mask.is_on_mask(*pose['translation'][:2]).all()
    messages = json.loads((tmp_path / 'world' / 'can_bus' / f'{row["name"]}_pose.json').read_text())
    assert np.linalg.norm(np.array(messages[5]['pos'][:2]) - pose['translation'][:2]) < 2


@pytest.mark.parametrize('name', PROTOCOLS)
def test_drawing_a_frame_takes_under_20_milliseconds(tables, synthetic_root, scenes, name):
    row, _, place = scenes[0]
    protocol = find_protocol(name)
    expansion = read_expansion(synthetic_root, place.location, protocol.areas + protocol.lines, 'a test')
    boxes = np.tile([[5.0, 5.0, 0.0, 4.0, 2.0, 1.5, 0.3]], (60, 1))
    footprints = Footprints.of_boxes(boxes, np.full(60, 'car'), np.full(60, 4))
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        map_labels(protocol, expansion, footprints, *poses(tables, row))
        seconds.append(time.process_time() - begin)
    assert min(seconds) < 0.02
