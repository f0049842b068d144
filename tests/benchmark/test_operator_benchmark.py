"""The operator benchmark times every backend of this machine."""

import pytest

from bevformer_plugin.benchmark.operator import Shape, benchmark_operator, operator_table
from bevformer_plugin.ops import BACKENDS


def test_every_backend_is_timed():
    report = benchmark_operator({'small map': Shape(2, 50, ((6, 5), (3, 2)), 2)}, rounds=2)
    backends = report['shapes']['small map']
    assert set(backends) <= {'plain', *BACKENDS} and {'plain', 'reference'} <= set(backends)
    for scopes in backends.values():
        for scope in ('forward', 'forward_backward'):
            assert len(scopes[scope]['seconds']) == 2 and min(scopes[scope]['seconds']) > 0
    assert backends['plain']['forward']['ratio'] == 1
    assert operator_table(report).count('small map') == len(backends)


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match='rounds must be at least 1, not 0'):
        benchmark_operator(rounds=0)
