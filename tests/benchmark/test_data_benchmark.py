"""The data benchmark on a tiny world: what it compares is the same, and it refuses what is not."""

import pytest

from bevformer_plugin.benchmark.data import benchmark_data, data_table


@pytest.fixture
def cfg(load_on_synthetic_world):
    """Tiny on images that are not resized."""
    return load_on_synthetic_world('bevformer_tiny', image_size=(200, 112), cameras=['CAM_FRONT', 'CAM_BACK'])


def test_versions_agree_and_are_timed(cfg, synthetic_root):
    report = benchmark_data(cfg, str(synthetic_root), samples=3, rounds=2, workers=1)
    versions = report['versions']
    assert list(versions) == ['stock transforms', 'stock transforms, resized first', 'ours, exact', 'ours']
    assert all(len(version['samples_per_second']) == 2 for version in versions.values())
    assert all(rate > 0 for version in versions.values() for rate in version['samples_per_second'])
    stock, _, exact, ours = versions.values()
    assert (stock['ratio'], stock['difference']) == (1, 0)
    assert exact['difference'] < 0.01 < ours['difference'] < 0.5  # the second rounds to 8 bits
    table = data_table(report)
    assert table.count('\n') == 6
    assert f'{ours["ratio"]:.2f}' in table


def test_other_pixels_are_refused(cfg, synthetic_root):
    cfg.train_dataloader.dataset.image_size = (100, 56)  # so small that the noise of the world fills it
    with pytest.raises(ValueError, match=r'pixels differ by 1\.\d\d of 255 levels'):
        benchmark_data(cfg, str(synthetic_root), samples=2, rounds=1, workers=1)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [({'samples': 0}, 'samples must be at least 1, not 0'), ({'workers': 0}, 'workers must be at least 1, not 0')],
)
def test_bad_arguments_are_refused(cfg, synthetic_root, arguments, message):
    with pytest.raises(ValueError, match=message):
        benchmark_data(cfg, str(synthetic_root), **arguments)


def test_what_cannot_be_compared_is_refused(cfg, synthetic_root):
    cfg.train_dataloader.dataset.queue_length = 9
    with pytest.raises(ValueError, match='too few keyframes with 8 frames before them'):
        benchmark_data(cfg, str(synthetic_root), samples=1)
    cfg.train_dataloader.dataset.image_size = None
    with pytest.raises(ValueError, match='no image_size'):
        benchmark_data(cfg, str(synthetic_root), samples=1)
    cfg.train_dataloader.dataset.frame_offsets = [-1, 0]
    with pytest.raises(ValueError, match=r'frame_offsets=\[-1, 0\]: this benchmark loads queues'):
        benchmark_data(cfg, str(synthetic_root), samples=1)
