"""A small synthetic world to measure on if the user has no data."""

from pathlib import Path

from bevformer_plugin.datasets import create_nuscenes_infos
from bevformer_plugin.synthetic import create_synthetic_world

IMAGE_SIZE = (1600, 900)


def make_world(root: Path) -> str:
    """Create a dataroot of two scenes of eight keyframes with images as large as those of nuScenes."""
    create_synthetic_world(root, scenes_train=1, scenes_val=1, frames=8, seed=0, image_size=IMAGE_SIZE)
    create_nuscenes_infos(root, 'v1.0-mini')
    return str(root)
