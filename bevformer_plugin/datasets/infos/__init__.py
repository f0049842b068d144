"""Info files: one pickle per split with what the dataset needs of every keyframe, made from the nuScenes tables.

Read in this order: :mod:`.table_files` (opening the tables), :mod:`.nuscenes_tables` (a keyframe's tables -> its
entry), :mod:`.row_checks` (rows that cannot be), :mod:`.can_bus` (its 18-vector), :mod:`.splits` (which scenes),
:mod:`.categories` (which annotations get a class), :mod:`.creation` (scenes in parallel, files), :mod:`.formats`
(recognising a file; foreign formats -> ours), :mod:`.entry_checks` (entries that cannot be), :mod:`.true_boxes` (which
objects count).
"""

from .can_bus import CAN_BUS_RULES
from .creation import convert_infos, create_nuscenes_infos
from .entry_checks import in_time_order
from .formats import load_infos, require_matching
from .nuscenes_tables import CATEGORIES, reference_record, visibility_level
from .published import BOX_CONVENTIONS
from .row_checks import check_annotations, check_transform
from .splits import OFFICIAL_SPLITS, default_split, find_splits, is_official, role_of
from .table_files import check_tables, has_annotations, open_tables, refuse_tables_that_do_not_fit
from .true_boxes import TRUE_BOX_RULES, check_rule, count_true_boxes, counted_boxes

__all__ = [
    'BOX_CONVENTIONS',
    'CAN_BUS_RULES',
    'CATEGORIES',
    'OFFICIAL_SPLITS',
    'TRUE_BOX_RULES',
    'check_annotations',
    'check_rule',
    'check_tables',
    'check_transform',
    'convert_infos',
    'count_true_boxes',
    'counted_boxes',
    'create_nuscenes_infos',
    'default_split',
    'find_splits',
    'has_annotations',
    'in_time_order',
    'is_official',
    'load_infos',
    'open_tables',
    'reference_record',
    'refuse_tables_that_do_not_fit',
    'require_matching',
    'role_of',
    'visibility_level',
]
