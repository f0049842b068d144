"""Which configs a benchmark can measure."""

from mmengine.config import Config

from bevformer_plugin.errors import InputError


def require_queues(cfg: Config, command: str) -> None:
    """Refuse a config whose training items are frames at fixed offsets, as those of BEVFormerV2.

    Args:
        cfg: the config.
        command: of tools/benchmark.py.

    Raises:
        InputError: with what can be measured of it.
    """
    offsets = cfg.train_dataloader.dataset.get('frame_offsets')
    if offsets is not None:
        raise InputError(
            f'benchmark {command} measures queues of frames that follow each other, and train_dataloader.dataset has '
            f'frame_offsets={list(offsets)}, as for BEVFormerV2: measure its training step with benchmark memory'
        )
