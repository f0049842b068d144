"""What benchmarks refuse to measure."""

import pytest

from bevformer_plugin.benchmark.data import benchmark_data
from bevformer_plugin.benchmark.speed import benchmark_speed
from bevformer_plugin.configuration import load_config
from bevformer_plugin.errors import InputError


@pytest.mark.parametrize(('benchmark', 'command'), [(benchmark_data, 'data'), (benchmark_speed, 'speed')])
def test_frames_at_fixed_offsets_are_no_queues(benchmark, command):
    with pytest.raises(InputError, match=rf'benchmark {command} measures queues .* frame_offsets=\[-1, 0\], as for'):
        benchmark(load_config('bevformer_v2/t2_24e'))
