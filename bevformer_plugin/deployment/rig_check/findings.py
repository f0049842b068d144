"""What :func:`.check.check_rig` can find, by the name of the fault."""

from dataclasses import dataclass

# Every fault with what it is, in the order in which findings are reported.
FAULTS = {
    'not_rigid': 'camera2ego does more than turn and move',
    'left_handed': 'camera2ego mirrors, or the frame of the vehicle is left-handed (y to the right)',
    'vehicle_axes': 'camera2ego is in a frame that is turned against that of the vehicle',
    'transposed_extrinsics': 'camera2ego, or the rotation in it, is transposed',
    'inverted_extrinsics': 'camera2ego is the transform from the vehicle to the camera',
    'camera_axes': 'the axes of the camera are not optical (x right, y down, z forward)',
    'quaternion_order': 'a quaternion (x, y, z, w) was read as (w, x, y, z), or the other way round',
    'degrees_for_radians': 'angles in degrees were read as radians',
    'tilted': 'the camera is rolled or pitched as no mount is, and no other fault explains it',
    'height': 'the camera is below the ground or more than 4 m above it',
    'swapped_cameras': 'two cameras are exchanged',
    'same_direction': 'two cameras look in one direction with one field of view',
    'direction_against_name': 'the camera looks elsewhere than its name says, and no other fault explains it',
    'intrinsics_resolution': 'the intrinsics are for images of another size',
    'field_of_view': 'the focal length gives a field of view that no pinhole camera has',
    'timestamp_unit': 'timestamps are milli-, micro- or nanoseconds instead of seconds',
    'time_order': 'timestamps do not increase',
    'camera_pose': 'the poses are those of a camera or another sensor instead of the vehicle',
    'pose_jump': 'the vehicle moves faster than 60 m/s between two frames',
    'yaw_sign': 'the heading turns the wrong way round',
}


@dataclass(frozen=True)
class Finding:
    """Something that looks wrong with a rig, its images, poses or timestamps.

    Attributes:
        camera: name of the camera; None where it is about the poses, the timestamps or the whole rig.
        fault: a key of ``FAULTS``.
        message: what looks wrong and what to do, in a sentence or two.
        other_camera: the second one of a finding about two cameras.
    """

    camera: str | None
    fault: str
    message: str
    other_camera: str | None = None
