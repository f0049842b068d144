"""Pictures of what a detector sees in the samples of an info file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.visualization import (
    Frame,
    FrameSource,
    boxes_from_results,
    check_score_threshold,
    draw_bev_features,
    draw_pillar_view,
    write_picture,
)

from .encoded_sample import EncodedSample, SampleEncoder, load_inspected_config
from .pillar_sampling import pillar_view, query_at


class BEVInspector:
    """Draws the BEV of samples, and where a pillar of it looks.

    Args:
        config: file or name of a config.
        checkpoint: file with weights of its model.
        source: the keyframes, without results: boxes are what the detector predicts.
        infos: the info file of ``source``.
        pillar: (x, y) of the pillar that is looked at, LiDAR frame, metres; None looks at none.

    Raises:
        FileNotFoundError: a file does not exist.
        InputError: config, checkpoint and infos do not belong together, or the pillar is outside of the BEV.
    """

    def __init__(
        self,
        config: str | Path,
        checkpoint: str | Path,
        source: FrameSource,
        infos: str | Path,
        pillar: tuple[float, float] | None = None,
    ) -> None:
        cfg = load_inspected_config(config)
        self.pillar = pillar
        if pillar is not None:
            shape, limits = cfg.model.get('bev_grid'), cfg.model.get('point_cloud_range')
            if shape is None or limits is None:
                raise InputError(
                    f'model.bev_grid and model.point_cloud_range of {config} are missing: take a BEVFormer'
                )
            query_at(BEVGrid(shape[0], shape[1], tuple(limits)), *pillar)  # before weights are loaded
        self.source = source
        self.encoder = SampleEncoder(cfg, checkpoint, source.root, infos)

    def draw(self, token: str, folder: Path, with_bev: bool, score_thr: float = 0.3) -> list[Path]:
        """Write pictures of a sample and return their paths.

        Args:
            token: of the sample.
            folder: for the pictures.
            with_bev: draw the features of the BEV, beside the picture of the pillar if there is one.
            score_thr: predicted boxes below this score are left out.

        Raises:
            FileNotFoundError: an image is missing.
            InputError: there is no such sample, an image is broken, or the encoder has no sampling points.
        """
        check_score_threshold(score_thr)
        frame = self.source.frame(token)
        encoded = self.encoder.encode(token, with_sampling=self.pillar is not None)
        predictions = None if encoded.results is None else boxes_from_results(encoded.results, frame.info)
        if predictions is not None:
            predictions = predictions.select(predictions.scores >= score_thr)
        frame = replace(frame, predictions=predictions)
        info = frame.info
        name = f'{info["scene_name"]}_{info["frame_idx"]:03d}_{info["token"][:8]}'
        note = f'BEV of {encoded.num_frames} frame{"s" if encoded.num_frames > 1 else ""} of the scene'
        paths: list[Path] = []
        grid = self.encoder.grid
        if with_bev:
            features = encoded.bev_embed.unflatten(0, (grid.bev_h, grid.bev_w)).numpy()
            picture = draw_bev_features(features, grid.point_cloud_range, frame, score_thr, note)
            paths.append(write_picture(picture, folder / f'bev_{name}.png'))
        if self.pillar is not None:
            x, y = self.pillar
            view = pillar_view(
                encoded.sampling, query_at(grid, x, y), grid, encoded.image_hw, maps_to_stored(encoded, frame)
            )
            print_log(view.summary, logger='current')
            picture = draw_pillar_view(view, grid.point_cloud_range, frame, note)
            paths.append(write_picture(picture, folder / f'attention_{x:g}_{y:g}_{name}.png'))
        return paths


def maps_to_stored(encoded: EncodedSample, frame: Frame) -> dict[str, np.ndarray]:
    """Compute the maps (3, 3) of homogeneous pixels of the network's images to those of the stored ones, by camera.

    Images are resized and cropped but not turned to another side, so that the two projections of a camera tell it.
    """
    projections = np.asarray(encoded.meta['lidar2img'])
    return {
        name: frame.lidar2img(name)[:, :3] @ np.linalg.inv(projection[:3, :3])
        for name, projection in zip(encoded.meta['cameras'], projections, strict=True)
    }
