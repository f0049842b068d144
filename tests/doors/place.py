"""A small dataroot of its own for every bad input, and the ways in which it is spoilt."""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.helpers.repository import CONFIGS, NANO_WEIGHTS

NANO = CONFIGS / 'bevformer_nano.py'
JOINT = CONFIGS / 'bevformer_nano_joint.py'
MAP = CONFIGS / 'bevformer_nano_map.py'
VERSION = 'v1.0-mini'


@dataclass
class Place:
    """Where one bad input lies.

    Attributes:
        root: dataroot with the info files of both splits.
        folder: for everything else.
    """

    root: Path
    folder: Path

    def options(self) -> list[str]:
        """``--cfg-options`` that lead the nano config here and train for one short epoch."""
        roots = [f'{part}_dataloader.dataset.data_root={self.root}' for part in ('train', 'val', 'test')]
        evaluators = [
            f'{part}_evaluator.{setting}'
            for part in ('val', 'test')
            for setting in (f'data_root={self.root}', f'version={VERSION}')
        ]
        return ['--cfg-options', *roots, *evaluators, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1']

    def map_options(self) -> list[str]:
        """``--cfg-options`` for a config whose only evaluator is that of maps."""
        return [option for option in self.options() if '_evaluator.' not in option]

    def joint_options(self) -> list[str]:
        """``--cfg-options`` for a config whose first evaluator is that of detection."""
        return [option.replace('_evaluator.', '_evaluator.0.') for option in self.options()]

    def train(self, *more: object, config: object = NANO) -> list[object]:
        """Command line that trains."""
        return ['train', config, '--work-dir', self.folder / 'run', *more]

    def test(self, *more: object, config: object = NANO, checkpoint: object = NANO_WEIGHTS) -> list[object]:
        """Command line that tests."""
        return ['test', config, checkpoint, '--out', self.folder / 'results_nusc.json', *more]

    def export(self, *more: object, checkpoint: object = NANO_WEIGHTS) -> list[object]:
        """Command line that writes an ONNX file."""
        return ['export', NANO, checkpoint, '--out', self.folder / 'model.onnx', *more]

    def create_data(self, *more: object) -> list[object]:
        """Command line that makes the info files again."""
        return ['create_data', 'nuscenes', '--root', self.root, '--version', VERSION, '--overwrite', *more]

    def evaluate(self, results: object, *more: object) -> list[object]:
        """Command line that scores a submission."""
        return ['evaluate', results, '--root', self.root, '--version', VERSION, *more]

    def report(self, *more: object) -> list[object]:
        """Command line that writes a report; ``more`` begins with the submissions."""
        out = self.folder / 'report.html'
        return ['report', '--root', self.root, '--version', VERSION, '--out', out, *more]

    def config(self, text: str) -> Path:
        """A config file that inherits from nano."""
        path = self.folder / 'child.py'
        path.write_text(f'_base_ = [{str(NANO)!r}]\n{text}\n')
        return path

    def table(self, name: str, change: Callable[[list[dict]], Any]) -> None:
        """Change rows of a table in place."""
        path = self.root / VERSION / f'{name}.json'
        rows = json.loads(path.read_text())
        change(rows)
        path.write_text(json.dumps(rows))

    def infos(self, change: Callable[[dict], Any], split: str = 'val') -> None:
        """Change the content of an info file in place."""
        path = self.root / f'nuscenes_infos_temporal_{split}.pkl'
        content = pickle.loads(path.read_bytes())
        change(content)
        path.write_bytes(pickle.dumps(content))

    def first_sample(self, change: Callable[[dict], Any], split: str = 'val') -> None:
        """Change the first entry of an info file in place."""
        self.infos(lambda content: change(content['data_list'][0]), split)

    def can_bus(self, change: Callable[[list[dict]], Any]) -> None:
        """Change the recorded pose messages of every scene in place."""
        for path in (self.root / 'can_bus').glob('*_pose.json'):
            messages = json.loads(path.read_text())
            change(messages)
            path.write_text(json.dumps(messages))

    def image(self, camera: str = 'CAM_FRONT') -> Path:
        """The image of a camera in the first validation sample."""
        content = pickle.loads((self.root / 'nuscenes_infos_temporal_val.pkl').read_bytes())
        return self.root / content['data_list'][0]['images'][camera]['img_path']

    def checkpoint(self, change: Callable[[dict], Any], name: str = 'spoilt.pth') -> Path:
        """The released nano checkpoint, changed."""
        content = torch.load(NANO_WEIGHTS, weights_only=True)
        change(content)
        path = self.folder / name
        torch.save(content, path)
        return path

    def file(self, name: str, content: bytes) -> Path:
        """Any file."""
        path = self.folder / name
        path.write_bytes(content)
        return path

    def submission(self, change: Callable[[dict], Any]) -> Path:
        """A submission with one car in every validation sample, changed."""
        content = pickle.loads((self.root / 'nuscenes_infos_temporal_val.pkl').read_bytes())
        results = {
            entry['token']: [
                {
                    'sample_token': entry['token'],
                    'translation': [0.0, 0.0, 0.0],
                    'size': [2.0, 4.0, 1.5],
                    'rotation': [1.0, 0.0, 0.0, 0.0],
                    'velocity': [0.0, 0.0],
                    'detection_name': 'car',
                    'detection_score': 0.5,
                    'attribute_name': 'vehicle.parked',
                }
            ]
            for entry in content['data_list']
        }
        flags = dict.fromkeys(('use_lidar', 'use_radar', 'use_map', 'use_external'), False)
        whole = {'meta': {'use_camera': True, **flags}, 'results': results}
        change(whole)
        path = self.folder / 'submission.json'
        path.write_text(json.dumps(whole))
        return path

    def remove_camera(self, camera: str) -> None:
        """Take the folder of a camera away, as where a part of the download is missing."""
        shutil.rmtree(self.root / 'samples' / camera)


def first_box(content: dict) -> dict:
    """The first box of a submission."""
    return next(iter(content['results'].values()))[0]
