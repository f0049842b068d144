"""From image files to the tensors of an item; each transform handles the current frame and its history alike.

Normalisation, padding and GridMask run on the device, in ``bevformer_plugin.models``.
"""

from .formatting import PackTemporalInputs
from .loading import LoadMultiViewImages, load_camera_image
from .photometric import PhotoMetricDistortionMultiView
from .resize import ResizeMultiView, resized_projection

__all__ = [
    'LoadMultiViewImages',
    'PackTemporalInputs',
    'PhotoMetricDistortionMultiView',
    'ResizeMultiView',
    'load_camera_image',
    'resized_projection',
]
