"""What an exported file says of itself: its tensors, and the metadata that it carries."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from bevformer_plugin.errors import InputError

DEFAULT, MLPERF = 'default', 'mlperf'
RAW, NORMALIZED = 'raw', 'normalized'


@dataclass(frozen=True)
class TensorNames:
    """Names of the inputs and outputs of a file, in their order.

    Attributes:
        inputs: in the order of the graph.
        outputs: likewise.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


# By profile, of files with boxes and without a map. The first three outputs of 'mlperf' are those of MLPerf
# Automotive's camera detection benchmark.
TENSORS = {
    DEFAULT: TensorNames(
        ('images', 'prev_bev', 'use_prev_bev', 'motion', 'lidar2img'), ('bev', 'scores', 'boxes', 'overflow')
    ),
    MLPERF: TensorNames(
        ('img', 'prev_bev', 'use_prev_bev', 'can_bus', 'lidar2img'),
        ('bev_embed', 'outputs_classes', 'outputs_coords', 'overflow'),
    ),
}
OF_BOXES = ('scores', 'boxes')  # outputs that files without boxes lack
MAP = 'map_probabilities'  # output that files with a map have, after the others
MAP_TO_LIDAR = 'map_to_lidar'  # input that those have whose map is in the vehicle's frame, after the others


@dataclass(frozen=True)
class OnnxDescription:
    """The metadata of an exported file, one entry of its ``metadata_props`` for each attribute, as JSON.

    Attributes:
        bevformer_plugin: version that wrote the file.
        profile: key of :data:`TENSORS`.
        images: 'raw' for (N, H, W, 3) uint8 in the order blue, green, red, which the file normalises and pads itself;
            'normalized' for (N, 3, Hp, Wp) float32 that are so already.
        image_size: (W, H) of the images before padding.
        padded_size: (Wp, Hp) after it, with zeros at the right and the bottom of the normalised image.
        mean: subtracted from the channels, after a change of their order.
        std: by which they are then divided.
        pad_size_divisor: padded height and width are multiples of it.
        bgr_to_rgb: whether blue and red change places before that.
        cameras: their names, in the order of the images.
        classes: their names, in the order of the scores; empty where the file has no boxes.
        frame: the frame of the boxes, 'lidar' or 'vehicle'.
        can_bus: rule by which CAN-bus messages were chosen for training, 'none' without messages.
        bev_grid: (rows, columns).
        point_cloud_range: (x, y, z) minima, then maxima of the BEV, metres.
        post_center_range: likewise, of the centres of boxes that are kept.
        max_num: scores that are kept, the best of all queries and classes.
        use_history: False for a model that treats every frame alone.
        max_time_gap: seconds after which a previous frame does not count.
        wrap_heading: whether the turn since the previous frame is brought into [-180, 180) degrees, which the file
            does itself; else a vehicle that crosses the global x axis appears to turn by almost 360 degrees.
        hits_per_camera: pillars of the BEV that one camera may see before ``overflow`` says so.
        cameras_per_pillar: cameras that may see one pillar.
        map_protocol: name of the protocol of the map; None where the file has no map.
        map_classes: names of the map's channels.
        map_frame: whose origin and axes the map has, 'lidar', 'ego' or 'flat_ego', see
            :class:`bevformer_plugin.maps.MapProtocol`; None without a map.
        map_extent: (x_min, y_min, x_max, y_max) of its cells in metres, x to the right and y forward in that frame.
    """

    bevformer_plugin: str
    profile: str
    images: str
    image_size: tuple[int, int]
    padded_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad_size_divisor: int
    bgr_to_rgb: bool
    cameras: tuple[str, ...]
    classes: tuple[str, ...]
    frame: str
    can_bus: str
    bev_grid: tuple[int, int]
    point_cloud_range: tuple[float, ...]
    post_center_range: tuple[float, ...]
    max_num: int
    use_history: bool
    max_time_gap: float
    wrap_heading: bool
    hits_per_camera: int
    cameras_per_pillar: int
    map_protocol: str | None
    map_classes: tuple[str, ...]
    map_frame: str | None
    map_extent: tuple[float, ...]

    def to_metadata(self) -> dict[str, str]:
        """Write every attribute as JSON."""
        return {name: json.dumps(value) for name, value in asdict(self).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: str) -> 'OnnxDescription':
        """Read what :meth:`to_metadata` wrote.

        Raises:
            InputError: if the file, whose path is for the message, was not written by ``tools/export.py``.
        """
        missing = [field.name for field in fields(cls) if field.name not in metadata]
        if missing:
            raise InputError(
                f'{path} was not written by tools/export.py of this version: its metadata lack {", ".join(missing)}'
            )
        values: dict[str, Any] = {}
        for field in fields(cls):
            value = json.loads(metadata[field.name])
            values[field.name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    @property
    def tensors(self) -> TensorNames:
        """Names of the file's inputs and outputs."""
        names = TENSORS[self.profile]
        outputs = tuple(name for name in names.outputs if self.classes or name not in OF_BOXES)
        return TensorNames(
            names.inputs if self.map_frame in (None, 'lidar') else (*names.inputs, MAP_TO_LIDAR),
            outputs if self.map_frame is None else (*outputs, MAP),
        )
