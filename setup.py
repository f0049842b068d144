"""Installs ``bevformer_plugin`` beside an existing torch and OpenMMLab; ``make setup`` builds the environment."""

import pathlib
import re

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r"__version__ = '([^']+)'", (ROOT / 'bevformer_plugin' / '__init__.py').read_text()).group(1)
FINDER = ROOT / 'bevformer_plugin' / 'ops' / 'mmcv_finder.py'
STARTED = '_bevformer_plugin_mmcv_finder'  # the finder's name beside the package, where Python starts it


class BuildWithFinder(build_py):
    """Adds the finder of ``mmcv._ext``, and the ``.pth`` file that starts it, beside the package or the link to it."""

    def run(self):
        """Build, then write into what becomes site-packages."""
        super().run()
        site = self.get_finalized_command('install').install_lib if self.editable_mode else self.build_lib
        for name, text in {
            f'{STARTED}.py': FINDER.read_text(encoding='utf-8'),
            f'{STARTED}.pth': f'import {STARTED}; {STARTED}.install_finder()\n',
        }.items():
            pathlib.Path(site, name).write_text(text, encoding='utf-8')


setup(
    name='bevformer_plugin',
    version=VERSION,
    description='BEVFormer for MMDetection3D 1.x, trained with PyTorch Lightning',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8') if (ROOT / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['bevformer_plugin', 'bevformer_plugin.*']),
    package_data={
        # In .mim are links to folders of the repository; what they lead to is copied.
        'bevformer_plugin': [
            'py.typed',
            '.mim/configs/**/*.py',
            '.mim/projects/*/bevformer_*.py',
            '.mim/tools/*.py',
        ],
        'bevformer_plugin.ops.native': ['*.cpp'],
        'bevformer_plugin.report': ['page.html', 'page.css', 'page.js'],
    },
    cmdclass={'build_py': BuildWithFinder},
    python_requires='>=3.10,<3.14',
    # The lowest versions that work, each of which make test-minimum installs: torch 2.7 has register_autocast of
    # custom operators, lightning 2.6 EMAWeightAveraging. mmdet3d and nuscenes-devkit are installed without their own
    # requirements (requirements-no-deps.txt): one asks for open3d, which nothing here uses, the other for numpy 1.
    install_requires=[
        'torch>=2.7.0',
        'lightning>=2.6.0',
        'mmengine>=0.10.4',
        'mmdet>=3.3.0,<3.4',
        'mmdet3d>=1.4.0,<1.5',
        'nuscenes-devkit>=1.2.0',
        'numpy>=1.23.5',
        'scipy>=1.10.0',
        'opencv-python-headless>=4.6.0.66',
        'matplotlib>=3.6.0',
        'shapely>=2.0.0',
        'jinja2>=3.1.0',
        'tqdm>=4.64.0',
        'pyyaml>=6.0',
    ],
    extras_require={
        'dev': ['pytest', 'pytest-xdist'],
        'logging': ['tensorboard'],
        # tools/export.py needs the first two, running what it writes the third.
        'onnx': ['onnx>=1.16', 'onnxscript>=0.5', 'onnxruntime>=1.18'],
        # tools/evaluate.py --task tracking.
        'tracking': ['motmetrics>=1.4', 'pandas>=1.5'],
    },
)
