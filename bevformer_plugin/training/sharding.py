"""Fully sharded data parallel training (PyTorch's ``fully_shard``), with the same checkpoints as without."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from mmengine.dist import broadcast
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, OptimStateKeyType, fully_shard

from .detector_module import DetectorModule

WHOLE = StateDictOptions(full_state_dict=True)


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for ``fully_shard``. It writes one file; any strategy goes on with that of any other.

    Loading goes through the checkpoint in memory, so that :class:`DetectorModule` can name the weights.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """By :meth:`load_optimizer_state_dict`."""
        return True

    def load_checkpoint(self, checkpoint_path: str, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the file in every process."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Keep this process's part of the weights."""
        set_model_state_dict(self.model, checkpoint['state_dict'], options=WHOLE)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Keep this process's part of the optimizer's state."""
        for optimizer, state in zip(self.optimizers, checkpoint['optimizer_states'], strict=True):
            named = FullyShardedDataParallel.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_NAME, self.model)
            set_optimizer_state_dict(self.model, optimizer, named, options=WHOLE)


class ShardedDetectorModule(DetectorModule):
    """Shards the detector's stages, and what is left of it as one more part.

    Weights are gathered once a step and stay until its backward pass: the processes run different numbers of history
    frames, so they could not gather for each anew. In validation, where also the numbers of frames differ, they stay
    gathered throughout.
    """

    def setup(self, stage: str) -> None:
        """Keep the layout of the weights: only contiguous ones can be sharded."""

    def configure_model(self) -> None:
        """Shard, once."""
        if isinstance(self.detector, FSDPModule):
            return
        mesh = init_device_mesh(self.trainer.strategy.root_device.type, (self.trainer.world_size,))
        self.detector.to(self.trainer.strategy.root_device)
        for stages in self.detector.stages().values():
            for stage in stages:
                fully_shard(stage, mesh=mesh, reshard_after_forward=False)
        fully_shard(self.detector, mesh=mesh, reshard_after_forward=False)
        for shard in self._shards():
            # Weights are there already. The default gathers what ran before, which a process without history lacks.
            shard.set_modules_to_backward_prefetch([shard])

    @torch.no_grad()
    def _broadcast_buffers(self) -> None:
        """Give all processes the first one's floating-point buffers, as DistributedDataParallel does.

        Every process collects running statistics from its own samples; history frames and validation are normalised by
        them. Counters are the same everywhere.
        """
        buffers = [buffer for buffer in self.detector.buffers() if buffer.is_floating_point()]
        values = torch.cat([buffer.flatten() for buffer in buffers])  # one message
        broadcast(values)
        for buffer, part in zip(buffers, values.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))

    def _shards(self) -> list[FSDPModule]:
        return [module for module in self.detector.modules() if isinstance(module, FSDPModule)]

    def on_train_batch_start(self, batch: dict, batch_idx: int) -> None:
        """Start each optimizer step from the same buffers in all processes."""
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self._broadcast_buffers()
        super().on_train_batch_start(batch, batch_idx)

    def on_validation_start(self) -> None:
        """Gather in all processes, also those that will have nothing to do."""
        self._broadcast_buffers()
        for shard in self._shards():
            shard.unshard()

    def on_validation_end(self) -> None:
        """Weights change in the next step."""
        for shard in self._shards():
            shard.reshard()

    def _save_for_inspection(self) -> None:
        """Write nothing: weights are gathered by all processes together, and this one may be alone."""
