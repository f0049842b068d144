"""A calibrated camera, from the calibration of any of seven conventions.

A vehicle's frame ("ego") has x forward, y left, z up, in metres, with its origin on the ground; in nuScenes it lies
under the rear axle. A camera's own axes are optical: x right, y down, z forward. A pixel (u, v) of a point p of the
vehicle's frame is

    (u * d, v * d, d) = intrinsics @ (inverse(camera2ego) @ (p, 1))[:3]

with the depth d in metres, u to the right and v down from the upper left corner of the image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from bevformer_plugin.errors import InputError

# Axes x forward, y left, z up of Waymo's cameras, of CARLA's after a flip, and of vehicles, in optical ones.
OPTICAL_TO_FORWARD = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
# Where KITTI's LiDAR is above the ground under the rear axle, by the drawing of its vehicle.
KITTI_VELO2EGO = np.array([[1.0, 0, 0, 0.76], [0, 1, 0, 0], [0, 0, 1, 1.73], [0, 0, 0, 1]])
WAYMO_INTRINSICS = 9  # fx, fy, cx, cy and five coefficients of the distortion


@dataclass(frozen=True, eq=False)
class Camera:
    """Where a camera is on its vehicle and how it maps points to pixels.

    Only shapes and numbers are checked here, so that :func:`.rig_check.check_rig` can explain a calibration that is
    wrong. Each classmethod takes the calibration as one convention writes it.

    Attributes:
        intrinsics: (3, 3) float64, from optical axes in metres to pixels times depth; without distortion.
        camera2ego: (4, 4) float64, from the camera's optical frame to the vehicle's, metres.
        size: (W, H) of the images in pixels that the intrinsics are for.

    Raises:
        InputError: if one has another shape, holds no finite numbers, or the size or a focal length is not positive.
    """

    intrinsics: np.ndarray
    camera2ego: np.ndarray
    size: tuple[int, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, 'intrinsics', array_of(self.intrinsics, 'intrinsics', (3, 3)))
        object.__setattr__(self, 'camera2ego', array_of(self.camera2ego, 'camera2ego', (4, 4)))
        object.__setattr__(self, 'size', _size(self.size))
        _check_intrinsics(self.intrinsics)

    @property
    def ego2img(self) -> np.ndarray:
        """The projection (4, 4) from the vehicle's frame in metres to pixels times depth."""
        projection = np.eye(4)
        projection[:3, :3] = self.intrinsics
        return projection @ np.linalg.inv(self.camera2ego)

    @property
    def yaw(self) -> float:
        """The direction in which it looks, degrees from straight ahead, to the left positive."""
        return float(np.degrees(np.arctan2(self.camera2ego[1, 2], self.camera2ego[0, 2])))

    def resized(self, size: tuple[int, int]) -> 'Camera':
        """Return the camera as it is after its images are resized to (W, H): u' = u W' / W, v' = v H' / H."""
        width, height = _size(size)
        scaling = np.diag([width / self.size[0], height / self.size[1], 1.0])
        return replace(self, intrinsics=scaling @ self.intrinsics, size=(width, height))

    @classmethod
    def from_nuscenes(cls, calibrated_sensor: Mapping[str, Any], size: tuple[int, int]) -> 'Camera':
        """Read a row of nuScenes' ``calibrated_sensor.json``.

        Args:
            calibrated_sensor: with ``translation`` (3 metres) and ``rotation`` (quaternion w, x, y, z) of the camera
                in the vehicle's frame, and ``camera_intrinsic`` (3, 3).
            size: (W, H) of its images in pixels.

        Raises:
            InputError: if an entry is missing or cannot be used.
        """
        translation, rotation, intrinsics = _entries(
            calibrated_sensor, ('translation', 'rotation', 'camera_intrinsic'), 'calibrated_sensor'
        )
        return cls(intrinsics, pose_of_wxyz(translation, rotation), size)

    @classmethod
    def from_ros(
        cls,
        camera_info: object,
        optical2base: ArrayLike | tuple[Sequence[float], Sequence[float]],
        *,
        rectified: bool,
    ) -> 'Camera':
        """Read a ``sensor_msgs/CameraInfo`` and the transform of the camera's optical frame.

        Rectified images are projected by ``P`` as ROS' image_geometry does, u = (fx X + cx Z + Tx) / Z; raw ones by
        ``K``, without distortion.

        Args:
            camera_info: the message, or a mapping with its fields ``k``, ``p``, ``d``, ``width`` and ``height`` (ROS
                1: ``K``, ``P``, ``D``).
            optical2base: what ``lookup_transform('base_footprint', 'camera_optical', time)`` gives, the pose of the
                *optical* frame (x right, y down, z forward), not of ``camera_link``: a (4, 4) matrix, or translation
                (x, y, z) and quaternion (x, y, z, w). Heights count from the ground, so a ``base_link`` at the height
                of an axle has to be raised with :meth:`.Rig.moved`.
            rectified: whether the images are those of ``image_rect``.

        Raises:
            InputError: if a field is missing, raw images are distorted, or images are binned or cut.
        """
        width, height = _size([_field(camera_info, name) for name in ('width', 'height')])
        if any(int(_field(camera_info, f'binning_{axis}', 0)) > 1 for axis in 'xy'):
            raise InputError(
                'CameraInfo has binning_x or binning_y above 1: give the calibration of the binned images'
            )
        roi = _field(camera_info, 'roi', {})
        region = [int(_field(roi, name, 0)) for name in ('x_offset', 'y_offset', 'width', 'height')]
        if region not in ([0, 0, 0, 0], [0, 0, width, height]):
            raise InputError(
                f'CameraInfo has a roi of {region[2]} x {region[3]} pixels at {region[0]}, {region[1]}: give the '
                'calibration of the images as they were cut'
            )
        pose = _ros_transform(optical2base)
        if not rectified:
            intrinsics = array_of(_field(camera_info, 'k'), 'k of CameraInfo', (9,)).reshape(3, 3)
            _refuse_distortion(_field(camera_info, 'd', ()), 'with rectified=True use images of image_rect')
            return cls(intrinsics, pose, (width, height))
        projection = array_of(_field(camera_info, 'p'), 'p of CameraInfo', (12,)).reshape(3, 4)
        return cls(projection[:, :3], pose @ np.linalg.inv(_shift_of(projection)), (width, height))

    @classmethod
    def from_opencv(
        cls,
        camera_matrix: ArrayLike,
        rvec: ArrayLike,
        tvec: ArrayLike,
        size: tuple[int, int],
        distortion: ArrayLike | None = None,
    ) -> 'Camera':
        """Read what ``cv2.calibrateCamera`` and ``cv2.solvePnP`` give, with the vehicle's frame as their world.

        OpenCV's extrinsics point from the world into the camera, the inverse of everyone else's:
        p_camera = Rodrigues(rvec) p_ego + tvec.

        Args:
            camera_matrix: (3, 3).
            rvec: rotation vector (3,) in radians.
            tvec: (3,) metres.
            size: (W, H) of the images in pixels.
            distortion: coefficients of the lens; they must be 0, because images are taken as pinhole images.

        Raises:
            InputError: if there is distortion, with the call that removes it, or an array has another shape.
        """
        _refuse_distortion(() if distortion is None else distortion)
        ego2camera = np.eye(4)
        ego2camera[:3, :3] = Rotation.from_rotvec(array_of(rvec, 'rvec', (3,))).as_matrix()
        ego2camera[:3, 3] = array_of(tvec, 'tvec', (3,))
        return cls(array_of(camera_matrix, 'camera_matrix', (3, 3)), np.linalg.inv(ego2camera), size)

    @classmethod
    def from_kitti(
        cls,
        p: ArrayLike,
        r0_rect: ArrayLike,
        tr_velo_to_cam: ArrayLike,
        size: tuple[int, int],
        velo2ego: ArrayLike = KITTI_VELO2EGO,
    ) -> 'Camera':
        """Read a KITTI calibration: (u d, v d, d) = P2 R0_rect Tr_velo_to_cam (x, y, z, 1) of a LiDAR point.

        Args:
            p: (3, 4) projection of the rectified camera, such as P2 of the left colour camera.
            r0_rect: (3, 3) rectifying rotation.
            tr_velo_to_cam: (3, 4) from the LiDAR (x forward, y left, z up) to camera 0.
            size: (W, H) of the images in pixels.
            velo2ego: (4, 4) from the LiDAR to the vehicle's frame on the ground.

        Raises:
            InputError: if an array has another shape or holds no numbers.
        """
        projection = array_of(p, 'p', (3, 4))
        rectification, velo2cam = np.eye(4), np.eye(4)
        rectification[:3, :3] = array_of(r0_rect, 'r0_rect', (3, 3))
        velo2cam[:3] = array_of(tr_velo_to_cam, 'tr_velo_to_cam', (3, 4))
        velo2camera = _shift_of(projection) @ rectification @ velo2cam
        if abs(np.linalg.det(velo2camera)) < 1e-9:
            raise InputError('r0_rect and tr_velo_to_cam have no inverse: give rotations, with their translation')
        return cls(projection[:, :3], array_of(velo2ego, 'velo2ego', (4, 4)) @ np.linalg.inv(velo2camera), size)

    @classmethod
    def from_argoverse2(cls, intrinsics: Mapping[str, Any], ego_se3_cam: Mapping[str, Any]) -> 'Camera':
        """Read rows of Argoverse 2's ``intrinsics.feather`` and ``egovehicle_SE3_sensor.feather``.

        Its vehicle frame lies at the height of the rear axle, about 0.33 m above the ground: see :meth:`.Rig.moved`.

        Args:
            intrinsics: with ``fx_px``, ``fy_px``, ``cx_px``, ``cy_px``, ``width_px`` and ``height_px``. Its images
                are undistorted; the front one is upright.
            ego_se3_cam: with ``qw``, ``qx``, ``qy``, ``qz``, ``tx_m``, ``ty_m`` and ``tz_m``: the pose of the camera
                in the vehicle's frame.

        Raises:
            InputError: if an entry is missing or holds no number.
        """
        fx, fy, cx, cy = _entries(intrinsics, ('fx_px', 'fy_px', 'cx_px', 'cy_px'), 'intrinsics')
        size = _entries(intrinsics, ('width_px', 'height_px'), 'intrinsics')
        rotation = _entries(ego_se3_cam, ('qw', 'qx', 'qy', 'qz'), 'ego_se3_cam')
        translation = _entries(ego_se3_cam, ('tx_m', 'ty_m', 'tz_m'), 'ego_se3_cam')
        return cls(pinhole(fx, fy, cx, cy), pose_of_wxyz(translation, rotation), _size(size))

    @classmethod
    def from_waymo(cls, intrinsic: ArrayLike, extrinsic: ArrayLike, size: tuple[int, int]) -> 'Camera':
        """Read a Waymo ``CameraCalibration``, whose camera axes are x forward, y left, z up.

        The rolling shutter is not modelled.

        Args:
            intrinsic: (9,) fx, fy, cx, cy in pixels, then k1, k2, p1, p2, k3 of the lens, which must be 0.
            extrinsic: (4, 4) or its 16 numbers row by row, from the camera's frame to the vehicle's.
            size: (W, H) of the images in pixels.

        Raises:
            InputError: if there is distortion, with the call that removes it, or an array has another shape.
        """
        values = array_of(intrinsic, 'intrinsic', (WAYMO_INTRINSICS,))
        _refuse_distortion(values[4:])
        flat = np.ravel(np.asarray(extrinsic, dtype=object))
        pose = array_of(flat.tolist(), 'extrinsic', (16,)).reshape(4, 4)
        return cls(pinhole(*values[:4].tolist()), pose @ OPTICAL_TO_FORWARD, size)

    @classmethod
    def from_carla(
        cls, location: Sequence[float], rotation: Sequence[float], fov: float, size: tuple[int, int]
    ) -> 'Camera':
        """Read the attributes of a CARLA camera that is attached to a vehicle.

        Unreal's axes are left-handed: x forward, y right, z up; a positive yaw turns to the right. The focal length
        is W / (2 tan(fov / 2)), the principal point the middle of the image.

        Args:
            location: (x, y, z) metres relative to the vehicle.
            rotation: (pitch, yaw, roll) degrees relative to the vehicle.
            fov: horizontal field of view in degrees.
            size: (W, H) of the images in pixels.

        Raises:
            InputError: if the field of view is not between 0 and 180 degrees, or an entry holds no number.
        """
        if not isinstance(fov, int | float | np.number) or not 0 < fov < 180:
            raise InputError(f'fov is degrees between 0 and 180, got {fov!r}')
        pitch, yaw, roll = array_of(rotation, 'rotation', (3,))
        x, y, z = array_of(location, 'location', (3,))
        width, height = _size(size)
        focal = width / (2 * np.tan(np.deg2rad(fov) / 2))
        # Flipping y turns the left-handed yaw and the heights of Unreal's pitch into right-handed rotations by minus
        # these angles; its roll to the right is right-handed about x already.
        turn = Rotation.from_euler('ZYX', [-yaw, -pitch, roll], degrees=True)
        camera2ego = np.eye(4)
        camera2ego[:3, :3] = turn.as_matrix()
        camera2ego[:3, 3] = x, -y, z
        return cls(pinhole(focal, focal, width / 2, height / 2), camera2ego @ OPTICAL_TO_FORWARD, (width, height))


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """Make the (3, 3) intrinsics of focal lengths and principal point in pixels."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def pose_of_wxyz(translation: ArrayLike, rotation: ArrayLike) -> np.ndarray:
    """Make a (4, 4) pose of a translation in metres and a quaternion (w, x, y, z).

    Raises:
        InputError: if they have other shapes, or the quaternion has not length 1.
    """
    w, x, y, z = array_of(rotation, 'rotation', (4,))
    return _pose(translation, [x, y, z, w])


def pose_of_xyzw(translation: ArrayLike, rotation: ArrayLike) -> np.ndarray:
    """Make a (4, 4) pose of a translation in metres and a quaternion (x, y, z, w).

    Raises:
        InputError: if they have other shapes, or the quaternion has not length 1.
    """
    return _pose(translation, array_of(rotation, 'rotation', (4,)).tolist())


def _pose(translation: ArrayLike, xyzw: list[float]) -> np.ndarray:
    length = float(np.linalg.norm(xyzw))
    if abs(length - 1) > 1e-2:
        raise InputError(f'the quaternion of a rotation has length 1, {xyzw} (x, y, z, w) has {length:.3g}')
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(xyzw).as_matrix()
    pose[:3, 3] = array_of(translation, 'translation', (3,))
    return pose


def _ros_transform(transform: ArrayLike | tuple[Sequence[float], Sequence[float]]) -> np.ndarray:
    """Read a transform of ROS given as a matrix or as translation and quaternion (x, y, z, w)."""
    if isinstance(transform, tuple) and len(transform) == 2:
        return pose_of_xyzw(*transform)
    return array_of(transform, 'optical2base', (4, 4))


def _shift_of(projection: np.ndarray) -> np.ndarray:
    """Split a (3, 4) projection K [I | t] and return the shift by t as (4, 4).

    Raises:
        InputError: if K maps to no image, such as the zeros of a camera that was not calibrated.
    """
    shift = np.eye(4)
    _check_intrinsics(projection[:, :3])
    shift[:3, 3] = np.linalg.solve(projection[:, :3], projection[:, 3])
    return shift


def _check_intrinsics(intrinsics: np.ndarray) -> None:
    if not (intrinsics[0, 0] > 0 and intrinsics[1, 1] > 0):
        raise InputError(
            f'intrinsics have focal lengths {intrinsics[0, 0]:g} and {intrinsics[1, 1]:g}; both are pixels above 0'
        )
    if not np.allclose(intrinsics[2], [0, 0, 1]):
        raise InputError(f'the last row of intrinsics is 0, 0, 1, got {intrinsics[2].tolist()}')


def _refuse_distortion(coefficients: ArrayLike, otherwise: str = '') -> None:
    """Raise an InputError if coefficients of a lens are not all 0."""
    try:
        values = np.asarray(coefficients, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        raise InputError(f'the distortion is the coefficients of the lens, got {coefficients!r}') from None
    if values.any():
        raise InputError(
            f'the images are distorted (coefficients {values.tolist()}), and the model takes pinhole images: '
            'undistort them with cv2.undistort(image, camera_matrix, distortion), which keeps camera_matrix, and give '
            'no distortion' + (f'; or {otherwise}' if otherwise else '')
        )


def array_of(values: ArrayLike, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Copy finite numbers of a shape to float64; a vector may come as a row or column.

    Raises:
        InputError: naming what is of another shape or not finite.
    """
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f'{name} is {" x ".join(map(str, shape))} numbers, got {values!r}') from None
    if len(shape) == 1 and array.size == shape[0]:
        array = array.reshape(shape)
    if array.shape != shape:
        raise InputError(f'{name} has shape {shape}, got {array.shape}')
    if not np.isfinite(array).all():
        raise InputError(f'{name} holds numbers that are not finite: {array.tolist()}')
    return array


def _size(size: Sequence[float]) -> tuple[int, int]:
    """Read (W, H) in whole pixels above 0."""
    width, height = array_of(size, 'size', (2,))
    if width < 1 or height < 1 or width % 1 or height % 1:
        raise InputError(f'size is (width, height) in whole pixels, got {tuple(size)}')
    return int(width), int(height)


def _entries(mapping: Mapping[str, Any], names: Sequence[str], what: str) -> list[Any]:
    """Read entries of a mapping.

    Raises:
        InputError: naming those that are missing.
    """
    if not hasattr(mapping, 'keys'):
        raise InputError(f'{what} is a row with {", ".join(names)}, got {mapping!r}')
    missing = [name for name in names if name not in mapping]
    if missing:
        raise InputError(f'{what} lacks {", ".join(missing)}; it has {", ".join(map(str, mapping))}')
    return [mapping[name] for name in names]


def _field(message: object, name: str, default: object = None) -> Any:
    """Read a field of a ROS message or mapping, by its name of ROS 2 or, in capitals, of ROS 1."""
    for candidate in (name, name.upper()):
        if isinstance(message, Mapping) and candidate in message:
            return message[candidate]
        if not isinstance(message, Mapping) and hasattr(message, candidate):
            return getattr(message, candidate)
    if default is None:
        raise InputError(f'camera_info has no {name}: give a sensor_msgs/CameraInfo or a mapping with its fields')
    return default
