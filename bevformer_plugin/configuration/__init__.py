"""Reading configs, changing them from the command line, and finding settings in them that nothing reads.

Read :mod:`.loading` first, then :mod:`.packaged` (configs by name), :mod:`.options` (``--cfg-options``) and
:mod:`.unread_settings`.
"""

from .loading import building, load_config
from .options import parse_config_options
from .packaged import packaged_configs

__all__ = ['building', 'load_config', 'packaged_configs', 'parse_config_options']
