"""A hook that makes tests under MMEngine's Runner as strict as under Lightning, for mmdetection3d's own tools."""

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from bevformer_plugin.datasets.described import DescribedDataset

from .comparison import check_checkpoint
from .files import load_content


@HOOKS.register_module()
class MatchCheckpoint(Hook):
    """Compares the checkpoint that the Runner tests with config and dataset, and loads it completely or not at all.

    The Runner itself would load whatever fits, and take the classes to be in the dataset's order.
    """

    def __init__(self) -> None:
        self.content: dict | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the checkpoint until the dataset is known."""
        self.content = checkpoint

    def before_train(self, runner: Runner) -> None:
        """Drop the checkpoint, because a training goes on from it by the Runner's own rules."""
        self.content = None

    def before_test(self, runner: Runner) -> None:
        """Compare the checkpoint with config and dataset, and load it with its classes in the dataset's order.

        Raises:
            InputError: if the checkpoint does not belong to config and dataset.
        """
        if self.content is None:
            return
        content, self.content = self.content, None
        dataset, path = runner.test_dataloader.dataset, runner.cfg.load_from
        assert isinstance(dataset, DescribedDataset)
        for remark in check_checkpoint(runner.cfg, dataset, path, content):
            runner.logger.warning(remark)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        assert isinstance(model, nn.Module)
        load_content(model, content, path, dataset.metainfo.get('classes'))
