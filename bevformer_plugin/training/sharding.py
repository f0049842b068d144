"""Fully sharded data parallel training (PyTorch's ``fully_shard``) with the same checkpoints as other training."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from mmengine.dist import broadcast
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, OptimStateKeyType, fully_shard

from .detector_module import DetectorModule

FULL_STATE_DICT = StateDictOptions(full_state_dict=True)


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for ``fully_shard``, which writes one file that a run of any strategy can go on with.

    A checkpoint is first read into memory as a whole, so that :class:`DetectorModule` can rename the weights.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """True, so that Lightning restores the optimizer through :meth:`load_optimizer_state_dict`."""
        return True

    def load_checkpoint(self, checkpoint_path: str, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the whole checkpoint in every process."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load the part of the weights that this process holds."""
        set_model_state_dict(self._built_model(), checkpoint['state_dict'], options=FULL_STATE_DICT)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load the part of the optimizer's state that this process holds."""
        model = self._built_model()
        for optimizer, state in zip(self.optimizers, checkpoint['optimizer_states'], strict=True):
            named = FullyShardedDataParallel.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_NAME, model)
            set_optimizer_state_dict(model, optimizer, named, options=FULL_STATE_DICT)

    def _built_model(self) -> nn.Module:
        """Return the model that Lightning has connected to this strategy, which it does before anything is loaded."""
        assert self.model is not None
        return self.model


class ShardedDetectorModule(DetectorModule):
    """Shards each of the detector's stages, and the remaining parameters as one more part.

    Weights are gathered once per step and stay gathered until its backward pass. Gathering them for every forward pass
    is impossible, since the processes run different numbers of history frames. In validation the numbers of frames
    differ as well, so the weights stay gathered throughout.
    """

    def setup(self, stage: str) -> None:
        """Keep the memory layout of the weights, because only contiguous weights can be sharded."""

    def configure_model(self) -> None:
        """Shard the detector, unless an earlier call has done so."""
        if isinstance(self.detector, FSDPModule):
            return
        mesh = init_device_mesh(self.trainer.strategy.root_device.type, (self.trainer.world_size,))
        self.detector.to(self.trainer.strategy.root_device)
        for stages in self.detector.stages().values():
            for stage in stages:
                fully_shard(stage, mesh=mesh, reshard_after_forward=False)
        fully_shard(self.detector, mesh=mesh, reshard_after_forward=False)
        for shard in self._shards():
            # The weights are gathered already. The default would gather those of the forward pass before, which has
            # not run in a process without history.
            shard.set_modules_to_backward_prefetch([shard])

    @torch.no_grad()
    def _broadcast_buffers(self) -> None:
        """Copy the first process's floating-point buffers to all processes, as DistributedDataParallel does.

        Every process collects running statistics from its own samples, and these normalise history frames and
        validation. Integer buffers only count and are the same in all processes.
        """
        buffers = [buffer for buffer in self.detector.buffers() if buffer.is_floating_point()]
        values = torch.cat([buffer.flatten() for buffer in buffers])  # sent as one message
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
        """Gather the weights in all processes, even those without a batch to validate."""
        self._broadcast_buffers()
        for shard in self._shards():
            shard.unshard()

    def on_validation_end(self) -> None:
        """Shard the weights again, because the next step changes them."""
        for shard in self._shards():
            shard.reshard()

    def _save_for_inspection(self) -> None:
        """Write nothing, because gathering the weights takes all processes, and only this one may have failed."""
