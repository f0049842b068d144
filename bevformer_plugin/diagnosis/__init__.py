"""What is wrong with a folder of tables, a machine, a dataroot or a checkpoint, said in words with the remedy.

Checking a folder of nuScenes tables (``tools/check_data.py``): :mod:`.data_check` runs the parts,
:mod:`.table_columns` (reading tables, their columns), :mod:`.table_links` (tokens and chains), :mod:`.table_values`
(times, poses, calibration, boxes) and :mod:`.image_files`. The rules are those by which infos are made, asked for
every row.

One page on everything (``tools/doctor.py``): :mod:`.page`, :mod:`.installation`, :mod:`.dataroot`, :mod:`.checkpoint`
and :mod:`.alignment` with :mod:`.image_alignment`.
"""

from .data_check import DataReport, check_data

__all__ = ['DataReport', 'check_data']
