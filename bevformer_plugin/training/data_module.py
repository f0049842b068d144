"""The config's dataloaders for Lightning."""
import lightning as L
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader


class DetectorDataModule(L.LightningDataModule):
    """Builds each dataloader of an MMEngine-style config once, as MMEngine's Runner does.

    Args:
        cfg: the config.
        seed: of samplers and workers.
    """

    def __init__(self, cfg: Config, seed: int = 0) -> None:
        super().__init__()
        self.cfg = cfg
        self.seed = seed
        self.loaders: dict[str, DataLoader] = {}

    def _loader(self, name: str) -> DataLoader:
        if name not in self.loaders:
            self.loaders[name] = Runner.build_dataloader(self.cfg[name], seed=self.seed)
        return self.loaders[name]

    def transfer_batch_to_device(self, batch: dict, device: torch.device, dataloader_idx: int) -> dict:
        """Leave the batch to the detector's data preprocessor."""
        return batch

    def train_dataloader(self) -> DataLoader:
        """``cfg.train_dataloader``."""
        return self._loader('train_dataloader')

    def val_dataloader(self) -> DataLoader:
        """``cfg.val_dataloader``."""
        return self._loader('val_dataloader')

    def test_dataloader(self) -> DataLoader:
        """``cfg.test_dataloader``."""
        return self._loader('test_dataloader')
