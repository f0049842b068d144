"""An import finder that offers :mod:`.mmcv_ext`, operators in PyTorch, as ``mmcv._ext`` if mmcv has none.

mmcv-lite ships the Python code of ``mmcv.ops`` but not the compiled module that it imports, and mmdet and mmdet3d
import all of it. Installing the plugin puts a copy of this file beside the package, and a ``.pth`` file imports it
whenever Python starts. So it does not matter which package a program imports first. To keep the start of Python fast,
this file imports only ``sys`` at its top.
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
    """An import finder that Python asks after all others, so that a compiled module is preferred."""

    @staticmethod
    def find_spec(
        name: str, path: 'Sequence[str] | None' = None, target: 'ModuleType | None' = None
    ) -> 'ModuleSpec | None':
        """Return the spec of the stand-in for ``mmcv._ext``; None for any other name and without the plugin.

        The plugin is located but not imported, since the caller may be in the middle of importing mmdet3d.
        """
        if name != NAME:
            return None
        import importlib.util
        from pathlib import Path

        plugin = importlib.util.find_spec('bevformer_plugin')
        for folder in (plugin and plugin.submodule_search_locations) or ():
            file = Path(folder, 'ops', STAND_IN)
            if file.is_file():
                return importlib.util.spec_from_file_location(name, file)
        return None


def install_finder() -> None:
    """Register the finder as the last one that Python asks, unless that has been done."""
    # Where lib64 is a link to lib, Python reads the .pth file, and so calls this function, twice.
    if StandInFinder not in sys.meta_path:
        sys.meta_path.append(StandInFinder)


def is_compiled() -> bool:
    """Tell whether ``mmcv._ext`` is mmcv's own compiled module, and neither the stand-in nor missing."""
    import importlib.util

    spec = importlib.util.find_spec(NAME)
    return spec is not None and not str(spec.origin).endswith(STAND_IN)


def provide_mmcv_ext() -> str:
    """Make ``mmcv._ext`` importable, if installing the plugin has not done so.

    Returns:
        'compiled' or 'stand-in', whichever ``mmcv.ops`` uses.

    Raises:
        ImportError: if mmcv is not installed.
    """
    import importlib.util

    if importlib.util.find_spec('mmcv') is None:
        raise ImportError('mmcv is missing: pip install mmcv-lite==2.1.0, or a compiled mmcv 2.1')
    if importlib.util.find_spec(NAME) is None:
        install_finder()
    return 'compiled' if is_compiled() else 'stand-in'
