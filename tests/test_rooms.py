"""The rooms of the package: which imports which, who imports Lightning, and what importing the package loads."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'bevformer_plugin'

# Modules of one purpose each that every room may import.
GROUND_FLOOR = ('errors', 'atomic_write', 'seeding', 'handed_down', 'nuscenes_format', 'frame_offsets', 'schedules')
# The rooms above, from the bottom to the top, each with the rooms that it may import.
MAY_IMPORT = {
    'configuration': set(),
    'synthetic': set(),
    'geometry': set(),
    'maps': {'geometry'},
    'ops': set(),
    'layers': {'geometry', 'ops'},
    'models': {'geometry', 'maps', 'ops', 'layers'},
    'datasets': {'geometry', 'maps'},
    'weights': {'configuration', 'geometry', 'models', 'datasets'},
    'evaluation': {'geometry', 'maps', 'datasets'},
    'tracking': {'datasets', 'evaluation'},
    'visualization': {'geometry', 'maps', 'datasets', 'evaluation'},
    'report': {'datasets', 'evaluation', 'visualization'},
    'inspection': {
        'configuration',
        'geometry',
        'layers',
        'models',
        'datasets',
        'weights',
        'evaluation',
        'visualization',
    },
    'deployment': {
        'configuration',
        'geometry',
        'maps',
        'ops',
        'layers',
        'models',
        'datasets',
        'weights',
        'evaluation',
        'visualization',
    },
    'training': {'configuration', 'maps', 'models', 'deployment', 'datasets', 'weights', 'evaluation'},
    'benchmark': {
        'configuration',
        'synthetic',
        'geometry',
        'ops',
        'layers',
        'models',
        'deployment',
        'datasets',
        'weights',
        'evaluation',
        'training',
    },
    'diagnosis': {'configuration', 'ops', 'datasets', 'weights', 'benchmark'},
}
# Rooms that `import bevformer_plugin` loads; the others are loaded by whoever needs them.
LOADED_WITH_THE_PACKAGE = {'ops', 'datasets', 'evaluation', 'geometry', 'layers', 'models', 'schedules', 'weights'}
# The benchmarks that train.
LIGHTNING_OUTSIDE_OF_TRAINING = {'benchmark/memory.py', 'benchmark/study.py'}


def imported_modules(file: Path, package: str) -> Iterator[str]:
    """Yields the full name of every module that a file imports, anywhere in it.

    `from a import b` gives `a.b`, as `b` may be a module.

    Args:
        file: of `package`.
        package: dotted name of the package that the file lies in.
    """
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split('.')
            parents = parents[: len(parents) + 1 - node.level] if node.level else []
            module = '.'.join([*parents, *([node.module] if node.module else [])])
            yield from (f'{module}.{alias.name}' for alias in node.names)


def package_of(file: Path) -> str:
    return '.'.join([PACKAGE.name, *file.relative_to(PACKAGE).parent.parts])


def room_of(file: Path) -> str:
    """The name of a file's room; '' for the `__init__.py` of the whole package."""
    first = file.relative_to(PACKAGE).parts[0].removesuffix('.py')
    return '' if first == '__init__' else first


FILES = sorted(PACKAGE.rglob('*.py'))


def rooms_imported_by(file: Path) -> set[str]:
    """The rooms that a file imports beside its own; '' stands for the package as a whole."""
    modules = [module.split('.') for module in imported_modules(file, package_of(file))]
    rooms = {[*parts, ''][1] for parts in modules if parts[0] == PACKAGE.name}
    return rooms - {room_of(file)}


def test_every_room_is_in_the_order():
    rooms = {room_of(file) for file in FILES} - {''}
    assert rooms - {*GROUND_FLOOR, *MAY_IMPORT} == set()
    assert set(MAY_IMPORT) - rooms == set()


def test_the_order_has_no_way_up():
    order = list(MAY_IMPORT)
    for room, lower in MAY_IMPORT.items():
        assert lower <= set(order[: order.index(room)]), room


@pytest.mark.parametrize('room', MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room):
    allowed = {*GROUND_FLOOR, *MAY_IMPORT[room], ''}
    upward = {
        f'{file.relative_to(PACKAGE)} imports {other}'
        for file in FILES
        if room_of(file) == room
        for other in rooms_imported_by(file) - allowed
    }
    assert upward == set()


def test_the_ground_floor_imports_no_room():
    """Its modules may import those before them."""
    for number, name in enumerate(GROUND_FLOOR):
        file = PACKAGE / f'{name}.py'
        if file.is_file():
            assert rooms_imported_by(file) <= set(GROUND_FLOOR[:number]), name


def test_the_package_is_imported_for_its_version_only():
    """A room that imports the package as a whole goes up to the roof: it may read the version there, nothing else."""
    read = {
        (str(file.relative_to(PACKAGE)), node.attr)
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8')))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == PACKAGE.name
    }
    assert {attribute for _, attribute in read} == {'__version__'}


def test_the_package_loads_the_rooms_that_fill_the_registries():
    assert rooms_imported_by(PACKAGE / '__init__.py') == LOADED_WITH_THE_PACKAGE


def files_that_import(*libraries: str) -> set[str]:
    return {
        str(file.relative_to(PACKAGE))
        for file in FILES
        for module in imported_modules(file, package_of(file))
        if module.split('.')[0] in libraries
    }


def test_only_training_imports_lightning():
    importing = files_that_import('lightning', 'pytorch_lightning')
    outside = {name for name in importing if not name.startswith('training/')}
    assert importing and outside <= LIGHTNING_OUTSIDE_OF_TRAINING


def test_only_pictures_import_matplotlib():
    """MMEngine imports it too, so the fresh process below cannot tell."""
    importing = files_that_import('matplotlib')
    assert importing and all(name.startswith('visualization/') for name in importing)


def test_importing_the_package_loads_neither_simulator_nor_lightning():
    code = 'import sys, bevformer_plugin; print(*sys.modules, sep="\\n")'
    modules = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert 'bevformer_plugin.models' in modules
    for absent in ('bevformer_plugin.synthetic', 'bevformer_plugin.training', 'bevformer_plugin.visualization'):
        assert absent not in modules
    assert not [name for name in modules if name.split('.')[0] in ('lightning', 'pytorch_lightning')]


@pytest.mark.parametrize(
    ('statement', 'expected'),
    [
        ('import bevformer_plugin.training.runs', ['bevformer_plugin.training.runs']),
        ('from .. import models', ['bevformer_plugin.models']),
        ('from ..models import BEVFormer', ['bevformer_plugin.models.BEVFormer']),
        ('from .boxes import BOX_VALUES', ['bevformer_plugin.geometry.boxes.BOX_VALUES']),
        ('from . import boxes', ['bevformer_plugin.geometry.boxes']),
        ('from bevformer_plugin import ops', ['bevformer_plugin.ops']),
        ('def f():\n    import lightning as L', ['lightning']),
    ],
)
def test_how_imports_are_read(tmp_path, statement, expected):
    file = tmp_path / 'module.py'
    file.write_text(statement)
    assert list(imported_modules(file, 'bevformer_plugin.geometry')) == expected
