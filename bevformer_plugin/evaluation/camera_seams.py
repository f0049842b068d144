"""How many cameras of a keyframe see a place, with a margin, so that objects between two cameras can be told."""

from dataclasses import dataclass

import numpy as np
from nuscenes import NuScenes
from nuscenes.utils.geometry_utils import transform_matrix
from pyquaternion import Quaternion

from bevformer_plugin.datasets.infos import check_intrinsic, check_transform

SEAM_MARGIN = 5.0  # degrees by which images are widened on both sides


@dataclass(frozen=True)
class HorizontalView:
    """What a camera sees, from left to right.

    Attributes:
        global2cam: (4, 4) from the global frame to the camera's (x right, y down, z forward).
        left, right: angles of the image's edges in radians from the optical axis, positive to the right.
    """

    global2cam: np.ndarray
    left: float
    right: float


def camera_views(tables: NuScenes, token: str) -> list[HorizontalView]:
    """Return the views of the cameras of a keyframe, each with the vehicle's pose at the time of its image.

    Raises:
        InputError: a pose, a mount or a camera matrix is broken.
    """
    views = []
    for channel, data_token in tables.get('sample', token)['data'].items():
        record = tables.get('sample_data', data_token)
        if record['sensor_modality'] != 'camera':
            continue
        where = f'sample {token}, {channel}'
        mount = tables.get('calibrated_sensor', record['calibrated_sensor_token'])
        pose = tables.get('ego_pose', record['ego_pose_token'])
        check_transform(mount, 'calibrated_sensor', where)
        check_transform(pose, 'ego_pose', where)
        check_intrinsic(mount, record, where)
        cam2ego, ego2global = (
            transform_matrix(row['translation'], Quaternion(row['rotation'])) for row in (mount, pose)
        )
        focal, centre = mount['camera_intrinsic'][0][0], mount['camera_intrinsic'][0][2]
        views.append(
            HorizontalView(
                global2cam=np.linalg.inv(ego2global @ cam2ego),
                left=float(np.arctan2(-centre, focal)),
                right=float(np.arctan2(record['width'] - centre, focal)),
            )
        )
    return views


def cameras_near(centres: np.ndarray, views: list[HorizontalView]) -> np.ndarray:
    """Count the cameras that see places, or would if their images were ``SEAM_MARGIN`` wider; heights do not matter.

    Args:
        centres: (n, 3) places in the global frame, metres.
        views: of the cameras.

    Returns:
        (n,) int.
    """
    counts = np.zeros(len(centres), dtype=int)
    margin = np.deg2rad(SEAM_MARGIN)
    for view in views:
        x, _, z = view.global2cam[:3, :3] @ centres.T + view.global2cam[:3, 3:]
        angles = np.arctan2(x, z)
        counts += (angles >= view.left - margin) & (angles <= view.right + margin)
    return counts
