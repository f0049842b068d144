"""The plugin installed by pip into an environment of its own, which sees the packages of the tests' environment."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.helpers.repository import REPO


def install(folder: Path, editable: bool = False) -> Path:
    """Interpreter of a new environment in ``folder``, in which a copy of the repository was installed."""
    source = folder / 'source'
    source.mkdir()
    for name in ('setup.py', 'pyproject.toml', 'README.md'):
        shutil.copy(REPO / name, source)
    for name in ('bevformer_plugin', 'configs', 'projects', 'tools'):
        shutil.copytree(REPO / name, source / name, symlinks=True)
    venv.create(folder / 'venv', symlinks=True)
    python = folder / 'venv' / 'bin' / 'python'
    # A line with a path makes the packages there importable; .pth files in it, so other installations, do not count.
    (site_packages(python) / 'packages_of_the_tests.pth').write_text(sysconfig.get_path('purelib') + '\n')
    pip(python, 'install', '--no-deps', '--no-build-isolation', *(['--editable'] if editable else []), source)
    return python


def site_packages(python: Path) -> Path:
    """Where the interpreter's own packages are."""
    return next(python.parents[1].glob('lib/python3*/site-packages'))


def pip(python: Path, *arguments: object) -> None:
    """Run pip for another interpreter."""
    command = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check', '--python', python, *arguments]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=clean_environment())
    assert done.returncode == 0, done.stderr


def run_installed(python: Path, *arguments: object, folder: Path) -> str:
    """Output of the interpreter in ``folder``, where nothing of the repository is importable but what is installed."""
    command = [*map(str, (python, '-W', 'ignore', *arguments))]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=clean_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def clean_environment() -> dict[str, str]:
    """The environment without a path to the repository."""
    return {**{key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}, 'OMP_NUM_THREADS': '1'}
