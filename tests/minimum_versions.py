"""Writes requirement files in which everything that setup.py sets a minimum for has exactly that version.

    python tests/minimum_versions.py FOLDER

What else ``requirements.txt`` and ``requirements-no-deps.txt`` pin is kept as it is.
"""

import ast
import sys
from pathlib import Path

from packaging.requirements import Requirement

REPO = Path(__file__).resolve().parents[1]


def stated_minima() -> dict[str, str]:
    """Name and lowest version of everything that setup.py requires.

    Raises:
        ValueError: if a requirement has no minimum.
    """
    calls = [node for node in ast.walk(ast.parse((REPO / 'setup.py').read_text())) if isinstance(node, ast.Call)]
    (stated,) = (word.value for call in calls for word in call.keywords if word.arg == 'install_requires')
    minima = {}
    for requirement in map(Requirement, ast.literal_eval(stated)):
        lowest = [specifier.version for specifier in requirement.specifier if specifier.operator == '>=']
        if len(lowest) != 1:
            raise ValueError(f'setup.py states no minimum for {requirement}')
        minima[requirement.name] = lowest[0]
    return minima


def at_minimum(file: Path, minima: dict[str, str]) -> list[str]:
    """The requirements of a file, at their minimum where there is one; markers for other Pythons are obeyed."""
    lines = [line.partition('#')[0].strip() for line in file.read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line]
    return [
        f'{requirement.name}=={minima[requirement.name]}' if requirement.name in minima else str(requirement)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate()
    ]


def main() -> None:
    """Write both files."""
    folder, minima = Path(sys.argv[1]), stated_minima()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in ('requirements.txt', 'requirements-no-deps.txt'):
        lines = at_minimum(REPO / name, minima)
        (folder / name).write_text('\n'.join(lines) + '\n')
        written += lines
    missing = sorted(name for name, version in minima.items() if f'{name}=={version}' not in written)
    if missing:
        sys.exit(f'error: setup.py requires {", ".join(missing)}, which neither requirements file has')


if __name__ == '__main__':
    main()
