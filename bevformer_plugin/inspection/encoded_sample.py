"""A sample of a dataset, encoded by a detector as in a test: streamed from the start of its scene."""

from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from torch import Tensor, nn
from tqdm import tqdm

from bevformer_plugin.configuration import building, load_config
from bevformer_plugin.datasets import NuScenesTemporalDataset
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import detections_to_results
from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.models import BEVFormer, DetectionHead
from bevformer_plugin.weights import check_checkpoint, load_content, read_checkpoint

from .pillar_sampling import RecordedSampling, recorded_sampling


@dataclass(frozen=True)
class EncodedSample:
    """What a detector made of a sample.

    Attributes:
        bev_embed: (Q, C) the BEV, float32 on the CPU.
        results: entries of a submission of detections; None if the detector has no head for them.
        sampling: of spatial cross-attention, for each layer of the encoder; empty if it was not asked for.
        meta: metainfo of the sample, with ``lidar2img`` (N, 4, 4) and ``cameras`` of the network's images.
        image_hw: padded size of the network's images in pixels.
        num_frames: frames of the scene that were encoded, with the sample itself.
    """

    bev_embed: Tensor
    results: list[dict] | None
    sampling: list[RecordedSampling]
    meta: dict
    image_hw: tuple[int, int]
    num_frames: int


class SampleEncoder:
    """Encodes samples of an info file with the detector of a config.

    Args:
        cfg: the config; its ``test_dataloader.dataset`` tells how samples are loaded.
        checkpoint: file with the weights, checked as tools/test.py does.
        root: nuScenes dataroot, in the place of the config's.
        infos: info file, in the place of the config's.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        InputError: config, checkpoint and infos do not belong together, or the model is no BEVFormer.
    """

    def __init__(self, cfg: Config, checkpoint: str | Path, root: str | Path, infos: str | Path) -> None:
        content = read_checkpoint(str(checkpoint))
        settings = deepcopy(cfg.test_dataloader.dataset)
        settings.update(data_root=str(root), ann_file=str(Path(infos).resolve()))
        with building('test_dataloader.dataset'):
            dataset = DATASETS.build(settings)
        if not isinstance(dataset, NuScenesTemporalDataset):
            raise InputError(f'test_dataloader.dataset is a {type(dataset).__name__}, not a NuScenesTemporalDataset')
        self.dataset = dataset
        for remark in check_checkpoint(cfg, dataset, str(checkpoint), content):
            print_log(remark, logger='current')
        with building('model'):
            detector = MODELS.build(cfg.model)
        if not isinstance(detector, BEVFormer):
            raise InputError(f'model.type of the config is {type(detector).__name__}, and this looks into a BEVFormer')
        self.classes = list(dataset.metainfo['classes'])
        load_content(detector, content, str(checkpoint), tuple(self.classes))
        self.detector: BEVFormer = detector
        self.detector.to(get_device())
        self.detector.eval()

    @property
    def grid(self) -> BEVGrid:
        """The BEV grid of the detector."""
        return self.detector.bev_encoder.grid

    @torch.no_grad()
    def encode(self, token: str, with_sampling: bool = False) -> EncodedSample:
        """Encode a sample and, where the detector uses history, before it all earlier ones of its scene.

        Args:
            token: of the sample.
            with_sampling: record what spatial cross-attention samples.

        Raises:
            FileNotFoundError: an image is missing.
            InputError: the infos have no such sample, an image is broken, or there are no sampling points to record.
        """
        encoder = self.detector.bev_encoder.encoder
        preprocessor = self.detector.data_preprocessor
        assert isinstance(preprocessor, nn.Module)
        history, indices = None, self._indices_until(token)
        records: list[RecordedSampling] = []
        for index in tqdm(indices, desc='frames of the scene', unit='frame'):
            data = preprocessor(pseudo_collate([self.dataset[index]]))
            imgs, samples = data['inputs']['imgs'][:, 0], data['data_samples']
            frames = self.detector.frames_of([sample.metainfo for sample in samples])
            with ExitStack() as stack:
                if with_sampling and index == indices[-1]:
                    records = stack.enter_context(recorded_sampling(encoder))
                encoded = self.detector.encode(imgs, frames, [history])
            history = encoded.histories()[0]
        head = dict(self.detector.heads.items()).get('detection')
        results = None
        meta = samples[0].metainfo
        if isinstance(head, DetectionHead):
            found = head.predict(encoded)['pred_instances_3d'][0]
            assert isinstance(found, InstanceData)
            results = detections_to_results(found, meta, self.classes)
        return EncodedSample(
            bev_embed=encoded.bev_embed[0].float().cpu(),
            results=results,
            sampling=records[-len(encoder.layers) :],
            meta=meta,
            image_hw=encoded.camera_features[0].image_hw,
            num_frames=len(indices),
        )

    def _indices_until(self, token: str) -> list[int]:
        """Return the dataset's indices of the frames that a sample's BEV is made of, the sample's own last."""
        tokens = self.dataset.sample_tokens()
        if token not in tokens:
            raise InputError(
                f'no sample {token} in the infos; the first of their {len(tokens)} samples is {tokens[0]}'
            )
        index = tokens.index(token)
        scene = next(scene for scene in self.dataset.scenes() if index in scene)
        return scene[: scene.index(index) + 1] if self.detector.use_history else [index]


def load_inspected_config(config: str | Path) -> Config:
    """Read a config and require what looking into its model needs.

    Raises:
        FileNotFoundError: there is no such config.
        InputError: it is broken or has no ``test_dataloader.dataset``.
    """
    cfg = load_config(config)
    if not (cfg.get('test_dataloader') or {}).get('dataset'):
        raise InputError(f'{config} has no test_dataloader.dataset, which tells how samples are loaded')
    return cfg
