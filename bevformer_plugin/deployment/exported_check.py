"""Comparison of what an exported file says of itself with the config and the dataset that it is tested with."""

from mmdet3d.registry import MODELS
from mmengine.config import Config

from bevformer_plugin.datasets.described import DescribedDataset
from bevformer_plugin.errors import InputError
from bevformer_plugin.models import DetectionHead
from bevformer_plugin.weights import compare_can_bus, compare_frames

from .onnx_description import OnnxDescription


def check_exported(cfg: Config, dataset: DescribedDataset, path: str, description: OnnxDescription) -> list[str]:
    """Compare an exported file with the config and the dataset that test it.

    Args:
        cfg: the config.
        dataset: the dataset to test on.
        path: of the file, for messages.
        description: what the file says of itself.

    Returns:
        Remarks for the log.

    Raises:
        InputError: if classes, cameras or size of the images differ, or the frame of the boxes or the CAN-bus rule, or
            the file predicts something else than the model of the config.
    """
    _compare_tasks(cfg, path, description)
    for name, meaning in (('classes', 'classes'), ('cameras', 'cameras'), ('image_size', 'images of the size')):
        given, written = dataset.metainfo.get(name), getattr(description, name)
        if given is not None and written and tuple(given) != written:
            raise InputError(
                f'{path} was written for the {meaning} {", ".join(map(str, written))}, the dataset gives '
                f'{", ".join(map(str, given))}: test it with the config that it was exported with'
            )
    remarks = compare_frames(description.frame, dataset, path)
    return remarks + compare_can_bus(cfg.model, description.can_bus, dataset, path)


def _compare_tasks(cfg: Config, path: str, description: OnnxDescription) -> None:
    """Refuse a file that lacks boxes or map of the config's model, or has others."""
    heads = [head for head in (cfg.model.get('heads') or {}).values() if head]
    protocol = next((head['protocol'] for head in heads if 'protocol' in head), None)
    kinds = [MODELS.get(head['type']) for head in heads]
    wanted = {'boxes': any(kind is DetectionHead for kind in kinds), f'a map by protocol {protocol!r}': protocol}
    written = {
        'boxes': description.classes,
        f'a map by protocol {description.map_protocol!r}': description.map_protocol,
    }
    of_config, of_file = ([what for what, there in tasks.items() if there] for tasks in (wanted, written))
    if of_config != of_file:
        raise InputError(
            f'{path} predicts {" and ".join(of_file)}, the model of the config {" and ".join(of_config)}: test it '
            'with the config that it was exported with'
        )
