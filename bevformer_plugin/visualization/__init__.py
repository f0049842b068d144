"""Pictures of keyframes: cameras with true and predicted boxes above the bird's-eye view.

Read in this order: :mod:`.frames` (what is drawn), :mod:`.frame_figure` (the page), :mod:`.camera_overlay` and
:mod:`.bev_view` with :mod:`.map_layers` (its parts), :mod:`.ranking` and :mod:`.pictures` (which samples, which
files).
"""

from .bev_features import draw_bev_features, principal_colors
from .bev_view import draw_bev
from .camera_overlay import boxes_in_image, draw_camera
from .frame_figure import check_score_threshold, draw_frame
from .frames import Boxes, Frame, FrameSource, PicturedFrame, boxes_from_results, true_boxes
from .map_layers import MapLayers
from .palette import track_color, track_label
from .pictures import check_folder, draw_best_and_worst, draw_sample, draw_scene, write_picture, write_video
from .pillar_view import CameraLook, PillarView, draw_pillar_view
from .ranking import sample_score

__all__ = [
    'Boxes',
    'CameraLook',
    'Frame',
    'FrameSource',
    'MapLayers',
    'PicturedFrame',
    'PillarView',
    'boxes_from_results',
    'boxes_in_image',
    'check_folder',
    'check_score_threshold',
    'draw_best_and_worst',
    'draw_bev',
    'draw_bev_features',
    'draw_camera',
    'draw_frame',
    'draw_pillar_view',
    'draw_sample',
    'draw_scene',
    'principal_colors',
    'sample_score',
    'track_color',
    'track_label',
    'true_boxes',
    'write_picture',
    'write_video',
]
