"""From a config and a checkpoint to an ONNX file, with room for the calibrations of the config's data or of a rig."""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from torch import Tensor

from bevformer_plugin.configuration import building
from bevformer_plugin.datasets import NuScenesTemporalDataset
from bevformer_plugin.datasets.transforms import resized_projection
from bevformer_plugin.errors import InputError
from bevformer_plugin.models import BEVFormer, BEVFormerV2
from bevformer_plugin.weights import TrainingRecord, check_checkpoint, load_content, read_checkpoint

from .frame_predictor import LOAD_TRUTH, ModelInputs
from .hit_budget import budget_for
from .onnx_description import RAW, OnnxDescription
from .onnx_detector import preprocessor_for
from .onnx_export import LIBRARIES, ExportReport, ModelSurroundings, OnnxForm, export_onnx, require_libraries
from .onnx_quantization import quantize_features
from .predictor import DescribedModel
from .rig import Rig

NO_DATA = 'Without data, give a rig with --rig'
ONNX_ENDING = '.onnx'  # of a file's name, by which tools/test.py tells it from a checkpoint
NO_INTEGERS = 'Without training data, leave --int8 out'
FRAMES = 200  # of a dataset whose calibrations are looked at, spread over all of it


def export_checkpoint(
    cfg: Config,
    checkpoint: str,
    path: str | Path,
    form: OnnxForm,
    rig: Rig | None = None,
    int8_frames: int | None = None,
) -> ExportReport:
    """Write the detector of a config with a checkpoint's weights as an ONNX file.

    Args:
        cfg: the config.
        checkpoint: file with the weights, checked as ``tools/test.py`` does.
        path: of the ONNX file.
        form: in which form.
        rig: the cameras that the file is for, which say how many pillars a camera sees; None takes the calibrations of
            ``test_dataloader.dataset``.
        int8_frames: frames of the training data to calibrate 8-bit integers of backbone and neck on; None leaves them
            in float32.

    Raises:
        FileNotFoundError: if the checkpoint or files of the data are missing.
        InputError: if config, data, rig and checkpoint do not belong together, or the detector cannot be written.
    """
    _check_request(cfg, path, form, int8_frames)
    inputs = ModelInputs.from_config(cfg)
    if inputs.image_size is None:
        raise InputError('test_dataloader.dataset has no image_size, and a file is written for images of one: set it')
    with building('model'):
        detector = MODELS.build(cfg.model)
    if not isinstance(detector, BEVFormer) or isinstance(detector, BEVFormerV2):
        raise InputError(f'model.type is {type(detector).__name__}: only a BEVFormer can be exported')
    data = _dataset(cfg.test_dataloader.dataset, NO_DATA) if rig is None else DescribedModel(inputs.metainfo)
    calibration = None if int8_frames is None else _calibration_data(cfg, int8_frames)
    content = read_checkpoint(checkpoint)
    for remark in check_checkpoint(cfg, data, checkpoint, content):
        print_log(remark, logger='current')
    load_content(detector, content, checkpoint, inputs.classes)
    record = TrainingRecord.of_checkpoint(content)
    surroundings = ModelSurroundings(
        image_size=inputs.image_size,
        cameras=inputs.cameras,
        classes=inputs.classes,
        frame=record.frame or data.metainfo.get('frame') or 'lidar',
        can_bus=record.can_bus or data.metainfo.get('can_bus') or 'none',
    )
    if isinstance(data, NuScenesTemporalDataset):
        projections = projections_of(data)
    else:
        assert rig is not None
        projections = [_projections_of_rig(rig, inputs.cameras, inputs.image_size)]
    budget = budget_for(detector, projections, (inputs.image_size[1], inputs.image_size[0]))
    if calibration is None:
        return export_onnx(detector, path, surroundings, budget, form)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        float32, int8 = Path(folder, 'float32.onnx'), Path(folder, 'int8.onnx')
        report = export_onnx(detector, float32, surroundings, budget, form)
        begin = time.perf_counter()
        quantize_features(float32, int8, prepared_images(calibration, report.description, int8_frames or 0))
        os.replace(int8, path)
    return replace(
        report,
        megabytes=Path(path).stat().st_size / 1e6,
        seconds=report.seconds + time.perf_counter() - begin,
    )


def _check_request(cfg: Config, path: str | Path, form: OnnxForm, int8_frames: int | None) -> None:
    """Refuse what no detector can be written as; arguments as of :func:`export_checkpoint`.

    Raises:
        InputError: if the file's name has another ending, the number of frames is not positive, libraries are
            missing, or the pipeline does not load what the file would take.
    """
    if Path(path).suffix != ONNX_ENDING:
        raise InputError(f'{path}: the name of an ONNX file ends in {ONNX_ENDING}, by which tools/test.py knows it')
    if int8_frames is not None and int8_frames < 1:
        raise InputError(f'--int8 takes one or more frames of the training data, got {int8_frames}')
    require_libraries(LIBRARIES, 'writing ONNX files')
    if form.images == RAW and _loads_float32(cfg):
        raise InputError(
            'the test pipeline loads images as float32, and raw images are bytes: give --images normalized, or leave '
            'to_float32 out'
        )


def _projections_of_rig(rig: Rig, cameras: tuple[str, ...], image_size: tuple[int, int]) -> Tensor:
    """Return the projections (N, 4, 4) of those of the model's cameras that a rig has, into images of a size.

    Raises:
        InputError: if it has none of them.
    """
    resized = rig.resized(image_size)
    known = [resized.lidar2img(name) for name in cameras if name in rig.cameras]
    if not known:
        raise InputError(f'the rig has none of the cameras {", ".join(cameras)}, but {", ".join(rig.cameras)}')
    return torch.from_numpy(np.stack(known))


def _dataset(config: dict, remedy: str) -> NuScenesTemporalDataset:
    """Build a dataset in test mode, without what is true of its frames, which a file is not written from.

    Raises:
        FileNotFoundError: if its files are missing, with the remedy.
        InputError: if it cannot be built, or is of another kind.
    """
    pipeline = [step for step in config.get('pipeline') or [] if step.get('type') not in LOAD_TRUTH]
    try:
        with building('test_dataloader.dataset'):
            dataset = DATASETS.build({**config, 'pipeline': pipeline, 'map_protocol': None})
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{error}. {remedy}') from error
    if not isinstance(dataset, NuScenesTemporalDataset):
        raise InputError(f'test_dataloader.dataset is a {type(dataset).__name__}, no NuScenesTemporalDataset')
    return dataset


def _calibration_data(cfg: Config, frames: int) -> NuScenesTemporalDataset:
    """Build the test dataset over the frames of training.

    Raises:
        InputError: if it has fewer frames than are asked for, or none are.
    """
    require_libraries(('onnxruntime',), 'quantising ONNX files')
    trained = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    places = {key: trained[key] for key in ('data_root', 'ann_file') if key in trained}
    dataset = _dataset({**cfg.test_dataloader.dataset, **places}, NO_INTEGERS)
    if not 1 <= frames <= len(dataset):
        raise InputError(f'--int8 takes from 1 to the {len(dataset)} frames of the training data, got {frames}')
    return dataset


def prepared_images(dataset: NuScenesTemporalDataset, description: OnnxDescription, frames: int) -> Iterator[Tensor]:
    """Load images of frames that are spread over a dataset.

    Args:
        dataset: in test mode.
        description: of the file that takes them.
        frames: how many.

    Yields:
        (N, 3, H, W) as the file's :meth:`OnnxNetwork.step` takes them.
    """
    preprocessor = preprocessor_for(description)
    for index in np.linspace(0, len(dataset) - 1, frames).round().astype(int):
        yield preprocessor(pseudo_collate([dataset[int(index)]]))['inputs']['imgs'][0][0]


def projections_of(dataset: NuScenesTemporalDataset, frames: int = FRAMES) -> Iterator[Tensor]:
    """Read calibrations of a dataset without its images.

    Args:
        dataset: with an ``image_size``.
        frames: that are read at most, spread over all of it.

    Yields:
        (N, 4, 4) float64, LiDAR metres to homogeneous pixels of images of the dataset's size.
    """
    assert dataset.image_size is not None
    count = min(frames, len(dataset))
    for index in np.linspace(0, len(dataset) - 1, count).round().astype(int):
        images = dataset.get_data_info(int(index))['images'].values()
        projections = [
            resized_projection(image['lidar2img'], (image['width'], image['height']), dataset.image_size)
            for image in images
        ]
        yield torch.from_numpy(np.stack(projections))


def _loads_float32(cfg: Config) -> bool:
    pipeline = cfg.test_dataloader.dataset.get('pipeline') or []
    return any(step.get('to_float32') for step in pipeline)
