"""Configs that are installed with the package, found by their names."""

import difflib
from pathlib import Path

from bevformer_plugin.errors import InputError

# configs/, tools/ and projects/: links in the repository, folders with copies in a wheel. The name .mim is that of
# OpenMMLab's packages, where ``mim run bevformer_plugin train`` finds the tools.
PACKAGED_FILES = Path(__file__).parents[1] / '.mim'
SUFFIX = '.py'


def packaged_configs() -> dict[str, Path]:
    """Files of the packaged configs by name, sorted; the parts of configs under ``_base_`` are not among them.

    The name of a config is its path without ``.py``: below ``configs/``, as in ``bevformer/bevformer_tiny``, or from
    ``projects/`` on, as in ``projects/synthetic_world/bevformer_nano_long``.
    """
    configs = PACKAGED_FILES / 'configs'
    released = {file.relative_to(configs): file for file in configs.glob('[!_]*/**/*.py')}
    studied = {file.relative_to(PACKAGED_FILES): file for file in PACKAGED_FILES.glob('projects/*/bevformer_*.py')}
    found = {path.with_suffix('').as_posix(): file for path, file in {**released, **studied}.items()}
    return dict(sorted(found.items()))


def find_config(name: str) -> Path:
    """The config file of this path, else the packaged config of this name; either may be given without ``.py``.

    Raises:
        InputError: if there is neither; it lists packaged configs with similar names.
    """
    for file in (Path(name), Path(name + SUFFIX)):
        if file.is_file():
            return file
    packaged = packaged_configs()
    wanted = name.removesuffix(SUFFIX)
    if wanted in packaged:
        return packaged[wanted]
    near = difflib.get_close_matches(wanted, packaged)
    hint = f'similar ones are {", ".join(near)}' if near else f'those that are packaged lie in {PACKAGED_FILES}'
    raise InputError(f'config {name} does not exist: it is neither a file nor the name of a packaged config; {hint}')
