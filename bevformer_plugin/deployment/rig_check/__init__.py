"""Whether a rig can be right: in words, and drawn into its images.

Read :mod:`.check` first (the door), then :mod:`.findings` (what can be wrong), :mod:`.calibration_faults` with
:mod:`.mount`, :mod:`.camera_names` and :mod:`.extrinsics_hypotheses` (the calibration alone), :mod:`.motion_faults`
(poses and times), :mod:`.image_faults` with :mod:`.image_motion` (what the images say), and :mod:`.drawing`.
"""

from .check import check_rig
from .drawing import draw_rig
from .findings import FAULTS, Finding

__all__ = ['FAULTS', 'Finding', 'check_rig', 'draw_rig']
