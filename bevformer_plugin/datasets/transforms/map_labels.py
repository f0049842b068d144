"""The true map of the current frame."""

from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from bevformer_plugin.errors import InputError


@TRANSFORMS.register_module()
class LoadMapLabels(BaseTransform):
    """Draws the true map of the current frame by the dataset's ``map_protocol``.

    The item gets ``gt_map``, (classes, rows, columns) uint8 of 0, 1 and ``IGNORED``, see
    :func:`bevformer_plugin.maps.map_labels`.

    Raises:
        InputError: the dataset has no ``map_protocol``.
    """

    def transform(self, results: dict) -> dict:
        """Add the map."""
        source = results.get('map_source')
        if source is None:
            raise InputError(
                'LoadMapLabels in the pipeline draws maps by map_protocol of the dataset, which is not set: set it, '
                "such as map_protocol='paper', or take the transform out"
            )
        results['gt_map'] = source.labels(results)
        return results
