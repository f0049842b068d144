"""Half precision: what is set takes effect, and what cannot is refused."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from bevformer_plugin.configuration import load_config
from bevformer_plugin.training import Hardware
from bevformer_plugin.training.hardware import (
    StaticLossScaler,
    check_precision,
    check_precision_under_mmengine,
    check_strategy,
    loss_scale_plugins,
)
from tests.helpers.processes import NANO, run_tool

FP16 = 'configs/bevformer/bevformer_tiny_fp16.py'
on_a_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU is there')


class OneNumber(L.LightningModule):
    """Learns one number; the factor of every step's loss, and so its gradient, is given."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.losses = losses
        self.scales: list[float] = []
        self.gradients: list[float] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.scales.append(self.trainer.precision_plugin.scaler.get_scale())
        return self.weight.sum() * self.losses[batch_idx]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.gradients.append(float(self.weight.grad))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(torch.zeros(len(self.losses)))


@on_a_cpu
def test_a_static_scale_stays_over_an_overflow_that_is_left_out(tmp_path):
    plugins = loss_scale_plugins(load_config(FP16), Hardware())
    module = OneNumber([1.0, float('inf'), 2.0, 4.0])
    trainer = L.Trainer(
        accelerator='cpu',
        plugins=plugins,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module)
    assert module.scales == [512.0] * 4
    assert module.gradients[0] == 1 and module.gradients[2:] == [2, 4]
    assert float(module.weight) == -(1 + 2 + 4)


def test_only_a_configured_scale_is_static():
    assert loss_scale_plugins(load_config(NANO), Hardware()) == []
    (plugin,) = loss_scale_plugins(load_config(FP16), Hardware())
    assert plugin.precision == '16-mixed'
    assert isinstance(plugin.scaler, StaticLossScaler) and plugin.scaler.static_scale == 512


@pytest.mark.parametrize(
    ('config', 'changes', 'hardware', 'message'),
    [
        (FP16, {}, Hardware(accelerator='cpu'), r'16-mixed \(float16\) needs a GPU'),
        (FP16, {}, Hardware(precision='bf16-mixed'), r'loss_scale=512\.0 .* has no effect in precision bf16-mixed'),
        (FP16, {'optim_wrapper.dtype': 'bfloat16'}, Hardware(), 'no effect in precision bf16-mixed'),
        (NANO, {'optim_wrapper.loss_scale': 512.0}, Hardware(), 'loss_scale: OptimWrapper takes no such argument'),
        (FP16, {}, Hardware(precision='32-true'), 'no effect in precision 32-true'),
        (FP16, {'optim_wrapper.loss_scale': 512}, Hardware(), "'dynamic' or a positive float such as 512.0, got 512"),
        (FP16, {'optim_wrapper.loss_scale': -1.0}, Hardware(), 'a positive float'),
        (FP16, {'optim_wrapper.optimizer.fused': True}, Hardware(), r'fused=False'),
        (FP16, {'optim_wrapper.dtype': 'float8'}, Hardware(), "'float16' or 'bfloat16', got 'float8'"),
    ],
)
def test_what_a_precision_cannot_do_is_refused(config, changes, hardware, message):
    with pytest.raises(ValueError, match=message):
        check_precision(load_config(config, changes), hardware)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'optim_wrapper.loss_scale': 512}, 'a positive float'),
        ({'optim_wrapper.dtype': 'bfloat16'}, 'no effect in precision bf16-mixed'),
        pytest.param({}, 'needs a GPU under MMEngine', marks=on_a_cpu),
    ],
)
def test_what_mmengine_cannot_do_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check_precision_under_mmengine(load_config(FP16, changes))


def test_sharding_scales_dynamically_only():
    with pytest.raises(ValueError, match='strategy fsdp scales losses dynamically'):
        check_strategy(load_config(FP16), 'fsdp')
    check_strategy(load_config(FP16), 'ddp')


@on_a_cpu
@pytest.mark.parametrize(('engine', 'message'), [('lightning', 'bf16-mixed'), ('mmengine', '--engine lightning')])
def test_the_tool_refuses_float16_on_a_cpu(small_options, tmp_path, engine, message):
    changes = ['optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper.optimizer.fused=False']
    done = run_tool(
        'train', NANO, '--engine', engine, '--work-dir', tmp_path / 'run', '--cfg-options', *small_options, *changes
    )
    assert done.returncode == 1 and done.last_line.startswith('error:') and 'needs a GPU' in done.last_line
    assert message in done.last_line
