"""From image files to the tensors of an item; each transform handles the current frame and its history alike.

Normalisation, padding and GridMask run on the device, in ``bevformer_plugin.models``.
"""

from .bev_augmentation import RandomBEVAugmentation
from .camera_instances import LoadCameraInstances
from .crop import CropMultiView
from .formatting import PackTemporalInputs
from .image_augmentation import RandomFlipMultiView, RandomResizeMultiView
from .loading import LoadMultiViewImages, load_camera_image
from .map_labels import LoadMapLabels
from .photometric import PhotoMetricDistortionMultiView
from .resize import ResizeMultiView, resized_projection

__all__ = [
    'CropMultiView',
    'LoadCameraInstances',
    'LoadMapLabels',
    'LoadMultiViewImages',
    'PackTemporalInputs',
    'PhotoMetricDistortionMultiView',
    'RandomBEVAugmentation',
    'RandomFlipMultiView',
    'RandomResizeMultiView',
    'ResizeMultiView',
    'load_camera_image',
    'resized_projection',
]
