"""Reading configs, changing them from the command line, and finding settings in them that nothing reads.

Read :mod:`.loading` first, then :mod:`.options` (``--cfg-options``) and :mod:`.unread_settings`.
"""

from .loading import building, load_config
from .options import parse_config_options

__all__ = ['building', 'load_config', 'parse_config_options']
