"""Submissions of the synthetic world's validation split."""

import itertools

import pytest
from nuscenes import NuScenes

from bevformer_plugin.datasets.infos import load_infos
from bevformer_plugin.evaluation import load_scored_boxes, write_results

from .true_submissions import true_submission


@pytest.fixture(scope='session')
def true_results(tables, info_files):
    """Every true box with points of the validation split, found exactly."""
    return true_submission(tables, [entry['token'] for entry in load_infos(info_files['mini_val'])['data_list']])


@pytest.fixture(scope='session')
def mixed_results(true_results):
    """Misses, shifts, false boxes, wrong headings, sizes, velocities and attributes, and equal scores."""
    results = {}
    for number, (token, entries) in enumerate(true_results.items()):
        kept = [{**entry} for index, entry in enumerate(entries) if (index + number) % 5]
        for index, entry in enumerate(kept):
            x, y, z = entry['translation']
            entry['translation'] = [x + 0.4 * (index % 7), y, z]
            entry['velocity'] = [entry['velocity'][0] + 0.3 * (index % 4), 0.5 * (number % 3)]
            entry['size'] = [value * (1 + 0.1 * (index % 3)) for value in entry['size']]
            entry['detection_score'] = [0.9, 0.7, 0.7, 0.4, 0.2][(index + number) % 5]
            if index % 6 == 0:
                entry['rotation'], entry['attribute_name'] = [1.0, 0.0, 0.0, 0.0], 'vehicle.moving'
        false = [{**entry, 'translation': [value + 5 for value in entry['translation']]} for entry in kept[::2]]
        results[token] = kept + [{**entry, 'detection_score': entry['detection_score'] / 2} for entry in false]
    return results


@pytest.fixture(scope='session')
def load_submission(synthetic_root, tmp_path_factory):
    """Write results as a submission and load it with its truth."""
    folder, numbers = tmp_path_factory.mktemp('submissions'), itertools.count()

    def load(results):
        path = folder / f'{next(numbers)}.json'
        write_results(results, path)
        return load_scored_boxes([path], str(synthetic_root), 'v1.0-mini')[0]

    return load


@pytest.fixture(scope='session')
def mixed(load_submission, mixed_results):
    return load_submission(mixed_results)


@pytest.fixture(scope='session')
def real_root(shared_dir):
    """Dataroot of real nuScenes tables; it is not part of the repository."""
    root = shared_dir / 'real' / 'nuscenes'
    if not root.is_dir():
        pytest.skip(f'{root} with real nuScenes tables is not on this machine')
    return root


@pytest.fixture(scope='session')
def real_truth(real_root):
    """Every true box with points of the real validation scenes."""
    real_tables = NuScenes('v1.0-mini', str(real_root), verbose=False)
    return true_submission(real_tables, [sample['token'] for sample in real_tables.sample])


@pytest.fixture
def load_real(real_root, tmp_path):
    """Write results of the real scenes as a submission and load it with its truth."""

    def load(results):
        write_results(results, tmp_path / 'results.json')
        return load_scored_boxes([tmp_path / 'results.json'], str(real_root), 'v1.0-mini')[0]

    return load
