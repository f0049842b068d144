"""Every function of the package and of the tools says what it takes and what it returns."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def missing_annotations(source: str) -> Iterator[tuple[int, str]]:
    """Yields line and description of every argument and return value in `source` without an annotation.

    The first argument of a method needs no annotation, unless the method is static; a lambda has no place for any. The
    kernels of Triton are left out, because there an annotation decides for which type a kernel is compiled.
    """
    tree = ast.parse(source)
    methods = {
        statement
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, FUNCTION)
    }
    for function in (node for node in ast.walk(tree) if isinstance(node, FUNCTION)):
        decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
        if 'triton.jit' in decorators:
            continue
        arguments = [*function.args.posonlyargs, *function.args.args]
        if function in methods and 'staticmethod' not in decorators:
            arguments = arguments[1:]
        arguments += [*function.args.kwonlyargs, *filter(None, (function.args.vararg, function.args.kwarg))]
        for argument in arguments:
            if argument.annotation is None:
                yield argument.lineno, f'argument {argument.arg} of {function.name}'
        if function.returns is None:
            yield function.lineno, f'what {function.name} returns'


@pytest.mark.parametrize('folder', ['bevformer_plugin', 'projects', 'tools'])
def test_every_function_is_annotated(folder):
    files = sorted((REPOSITORY / folder).rglob('*.py'))
    assert files, f'no Python file in {REPOSITORY / folder}'
    missing = [
        f'{file.relative_to(REPOSITORY)}:{line}: {description}'
        for file in files
        for line, description in missing_annotations(file.read_text(encoding='utf-8'))
    ]
    assert not missing, 'without an annotation:\n' + '\n'.join(missing)


@pytest.mark.parametrize(
    ('source', 'expected'),
    [
        ('def area(width, height: float) -> float: ...', ['argument width of area']),
        ('def area(width: float): ...', ['what area returns']),
        ('async def area(width: float): ...', ['what area returns']),
        ('def area(*sides: float, **named) -> None: ...', ['argument named of area']),
        ('def area(*, width) -> None: ...', ['argument width of area']),
        ('class Box:\n    def area(self) -> float: ...', []),
        ('class Box:\n    def area(self, unit) -> float: ...', ['argument unit of area']),
        ('class Box:\n    @classmethod\n    def unit(cls) -> "Box": ...', []),
        ('class Box:\n    @staticmethod\n    def area(unit) -> float: ...', ['argument unit of area']),
        (
            'def outer() -> None:\n    def inner(self): ...',
            ['argument self of inner', 'what inner returns'],
        ),
        ('@triton.jit\ndef kernel(value, SIZE: tl.constexpr): ...', []),
        ('class Box:\n    def __init__(self): ...', ['what __init__ returns']),
    ],
)
def test_what_counts_as_missing(source, expected):
    assert [description for _, description in missing_annotations(source)] == expected
