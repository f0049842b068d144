"""Info files: one pickle per split that holds, for every keyframe, what the dataset needs from the nuScenes tables.

Read in this order: :mod:`.table_files` (opening the tables), :mod:`.nuscenes_tables` (from a keyframe's rows in the
tables to its entry), :mod:`.row_checks` (refusing broken rows), :mod:`.can_bus` (the CAN-bus vector), :mod:`.splits`
(which scenes are for training), :mod:`.categories` (which annotations get a class), :mod:`.creation` (all scenes in
parallel, writing the files), :mod:`.formats` (reading files of several formats), :mod:`.published` (converting the
published BEVFormer's), :mod:`.entry_checks` (refusing broken entries), :mod:`.true_boxes` (which objects count).
"""

from .can_bus import CAN_BUS_RULES
from .creation import convert_infos, create_nuscenes_infos
from .entry_checks import in_time_order
from .formats import load_infos, require_matching
from .nuscenes_tables import CATEGORIES, reference_record, visibility_level
from .published import BOX_CONVENTIONS
from .row_checks import check_annotations, check_intrinsic, check_transform
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
    'check_intrinsic',
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
