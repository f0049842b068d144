"""Testing under MMEngine's Runner as strictly as under Lightning, for mmdetection3d's own tools."""

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from .comparison import check_checkpoint
from .files import load_content


@HOOKS.register_module()
class MatchCheckpoint(Hook):
    """Compares the checkpoint that the Runner tests with config and dataset, and loads it whole or not at all.

    The Runner itself loads what happens to fit and takes the classes to be in the dataset's order.
    """

    def __init__(self) -> None:
        self.content: dict | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep it until the dataset is known."""
        self.content = checkpoint

    def before_train(self, runner: Runner) -> None:
        """Let go of it: training goes on from it as the Runner does."""
        self.content = None

    def before_test(self, runner: Runner) -> None:
        """Compare it, and load it with its classes in the dataset's order.

        Raises:
            InputError: if it does not belong to config and dataset.
        """
        if self.content is None:
            return
        content, self.content = self.content, None
        dataset, path = runner.test_dataloader.dataset, runner.cfg.load_from
        for remark in check_checkpoint(runner.cfg, dataset, path, content):
            runner.logger.warning(remark)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        load_content(model, content, path, dataset.metainfo['classes'])
