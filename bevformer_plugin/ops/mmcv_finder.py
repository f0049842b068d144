"""Finds a module for ``mmcv._ext`` where mmcv has none: :mod:`.mmcv_ext`, the operators in PyTorch.

mmcv-lite ships the Python of ``mmcv.ops`` but not the compiled module that it imports, and mmdet and mmdet3d import
all of it. Installing the plugin puts a copy of this file beside it, which a ``.pth`` file imports whenever Python
starts, so that it does not matter which package a program imports first. So nothing but ``sys`` is imported on top.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

NAME = 'mmcv._ext'
STAND_IN = 'mmcv_ext.py'


class StandInFinder:
    """Asked by Python after all other finders, so that a compiled module comes first."""

    @staticmethod
    def find_spec(
        name: str, path: 'Sequence[str] | None' = None, target: 'ModuleType | None' = None
    ) -> 'ModuleSpec | None':
        """The stand-in's spec for ``mmcv._ext``; None for any other name, and where the plugin is not installed.

        The plugin is looked up but not imported: whoever asks may be in the middle of importing mmdet3d.
        """
        if name != NAME:
            return None
        import importlib.util
        from pathlib import Path

        plugin = importlib.util.find_spec('bevformer_plugin')
        for folder in plugin.submodule_search_locations if plugin else ():
            file = Path(folder, 'ops', STAND_IN)
            if file.is_file():
                return importlib.util.spec_from_file_location(name, file)
        return None


def install_finder() -> None:
    """Let Python ask the finder last; a ``.pth`` file is read twice where lib64 is a link to lib."""
    if StandInFinder not in sys.meta_path:
        sys.meta_path.append(StandInFinder)


def is_compiled() -> bool:
    """Whether ``mmcv._ext`` is mmcv's own, and not the stand-in or missing."""
    import importlib.util

    spec = importlib.util.find_spec(NAME)
    return spec is not None and not str(spec.origin).endswith(STAND_IN)


def provide_mmcv_ext() -> str:
    """Make ``mmcv._ext`` importable where an installation has not done so.

    Returns:
        'compiled' or 'stand-in': what ``mmcv.ops`` uses.

    Raises:
        ImportError: if mmcv is not installed.
    """
    import importlib.util

    if importlib.util.find_spec('mmcv') is None:
        raise ImportError('mmcv is missing: pip install mmcv-lite==2.1.0, or a compiled mmcv 2.1')
    if importlib.util.find_spec(NAME) is None:
        install_finder()
    return 'compiled' if is_compiled() else 'stand-in'
