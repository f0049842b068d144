"""Made-up inputs of the layers."""

import pytest
import torch

from bevformer_plugin.geometry import BEVGrid, pillar_points, project_to_cameras
from bevformer_plugin.layers import AlignedHistory, PillarHits


@pytest.fixture
def randomize():
    """Give every parameter its own value; initial offsets and weights are the same for all queries."""

    def fill(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        return module.eval()

    return fill


class Scene:
    """Inputs of the encoder for some samples, each with a rig, a motion and a previous BEV of its own.

    Features have two levels of 6 x 10 and 3 x 5; the image is 60 x 100 pixels, the grid 7 x 9.
    """

    image_hw = (60, 100)
    level_hw = ((6, 10), (3, 5))

    def __init__(self, batch: int, cameras: int, channels: int, grid: BEVGrid) -> None:
        generator = torch.Generator().manual_seed(7)

        def randn(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        self.grid = grid
        self.bev_query = randn(batch, grid.num_queries, channels)
        self.bev_pos = randn(batch, grid.num_queries, channels)
        prev_bev = randn(batch, grid.num_queries, channels)
        self.features = [randn(batch, cameras, channels, *hw) for hw in self.level_hw]
        shift = randn(batch, 2) * 0.05
        self.history = AlignedHistory(prev_bev, torch.ones(batch, dtype=torch.bool), shift)
        self.lidar2img = torch.stack(
            [
                torch.stack([self.camera(360 * n / max(cameras, 6) + 25 * b) for n in range(cameras)])
                for b in range(batch)
            ]
        )

    def camera(self, degrees: float) -> torch.Tensor:
        """A level camera at the origin, 70 degrees wide, that looks along ``degrees`` from +x."""
        angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        sin, cos, zero = angle.sin(), angle.cos(), torch.zeros((), dtype=torch.float64)
        forward, right = torch.stack([cos, sin, zero, zero]), torch.stack([sin, -cos, zero, zero])
        down = torch.tensor([0.0, 0.0, -1.0, 0.0], dtype=torch.float64)
        height, width = self.image_hw
        last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
        return torch.stack([72 * right + width / 2 * forward, 72 * down + height / 2 * forward, forward, last])

    def project(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Reference points in the cameras and their visibility, for pillars of four heights."""
        return project_to_cameras(pillar_points(self.grid, 4), self.lidar2img, self.image_hw)

    def one(self, index: int) -> 'Scene':
        """The same inputs of one sample."""
        alone = object.__new__(Scene)
        alone.grid = self.grid
        for name in ('bev_query', 'bev_pos', 'lidar2img'):
            setattr(alone, name, getattr(self, name)[index : index + 1])
        history = self.history
        alone.history = AlignedHistory(
            *(part[index : index + 1] for part in (history.bev_embed, history.exists, history.shift))
        )
        alone.features = [level[index : index + 1] for level in self.features]
        return alone

    def encode(self, encoder: torch.nn.Module, **changes: object) -> torch.Tensor:
        """Run the encoder on these inputs, some of them changed."""
        inputs = dict(
            bev_query=self.bev_query,
            bev_pos=self.bev_pos,
            features=self.features,
            hits=PillarHits.from_projection(*self.project()),
            history=self.history,
            grid=self.grid,
        )
        return encoder(**{**inputs, **changes})


@pytest.fixture
def make_scene():
    """Build a :class:`Scene` on a grid that is not square."""

    def make(
        batch: int = 2,
        cameras: int = 6,
        channels: int = 16,
        extent: tuple[float, ...] = (-27.0, -21.0, -5.0, 27.0, 21.0, 3.0),
    ) -> Scene:
        return Scene(batch, cameras, channels, BEVGrid(7, 9, extent))

    return make
