"""Installs ``bevformer_plugin`` beside an existing torch and OpenMMLab; ``make setup`` builds the environment."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r"__version__ = '([^']+)'", (ROOT / 'bevformer_plugin' / '__init__.py').read_text()).group(1)

setup(
    name='bevformer_plugin',
    version=VERSION,
    description='BEVFormer for MMDetection3D 1.x, trained with PyTorch Lightning',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8') if (ROOT / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['bevformer_plugin', 'bevformer_plugin.*']),
    package_data={'bevformer_plugin.ops.native': ['*.cpp']},
    python_requires='>=3.10,<3.13',
    # mmdet3d is named without its own requirements in requirements.txt: it asks for open3d, which nothing here uses.
    install_requires=[
        'torch>=2.1',
        'lightning>=2.4',
        'mmengine>=0.10.4',
        'mmdet>=3.3,<3.4',
        'mmdet3d>=1.4,<1.5',
        'nuscenes-devkit>=1.1.11',
        'numpy<2',
        'opencv-python-headless<4.12',
        'matplotlib',
        'tqdm',
    ],
    extras_require={'dev': ['pytest', 'ruff'], 'logging': ['tensorboard']},
)
