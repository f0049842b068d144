"""Batches of frame queues: channel order, normalisation and padding, on the device."""

import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.model import ImgDataPreprocessor
from torch import Tensor

from bevformer_plugin.errors import InputError
from bevformer_plugin.models.bev.frames import camera_name


@MODELS.register_module()
class BEVFormerDataPreprocessor(ImgDataPreprocessor):
    """Turns collated frame queues into one normalised tensor.

    Samples may have different queue lengths and image sizes: frames are aligned at the end (the current frame is the
    last), images at the top left; what is missing is 0 *after* normalisation. The detector treats every sample at its
    own padded size, so that it does not matter beside which others it is.

    Args:
        mean: of the three channels, in the order after ``bgr_to_rgb``.
        std: likewise.
        pad_size_divisor: padded height and width are multiples of it.
        bgr_to_rgb: images arrive as BGR and the backbone expects RGB.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: list[float], std: list[float], pad_size_divisor: int = 32, bgr_to_rgb: bool = False
    ) -> None:
        super().__init__(
            mean=mean, std=std, pad_size_divisor=pad_size_divisor, bgr_to_rgb=bgr_to_rgb, non_blocking=True
        )

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare a batch.

        Args:
            data: ``inputs=dict(img=[(T_b, N, 3, H_b, W_b), ...])``, uint8 or float, and ``data_samples``; where
                0 and 255 stand for other values, ``img_range=[(T_b, N, 2), ...]`` beside ``img``.
            training: unused; training and testing see the same preparation.

        Returns:
            ``inputs=dict(imgs=(B, T, N, 3, Hp, Wp) float32)`` and ``data_samples``, whose metas (current and history)
            gain ``pad_shape``, (H, W) to which the sample's own images are padded; (Hp, Wp) is that of the largest.

        Raises:
            InputError: if images are not (T, N, 3, H, W) of uint8 or finite floats, the samples have different numbers
                of cameras, or a queue and its metas differ in length.
        """
        # Checked before the transfer: on a GPU, reading values would wait for all queued work.
        _require_usable(data['inputs'], data.get('data_samples'))
        moved = self.cast_data(data)
        assert isinstance(moved, dict)
        queues, data_samples = moved['inputs']['img'], moved.get('data_samples')
        cameras = {queue.shape[1] for queue in queues}
        if len(cameras) > 1:
            raise InputError(f'the samples of a batch have different numbers of cameras: {sorted(cameras)}')
        imgs = self._stack(queues, moved['inputs'].get('img_range'))
        for queue, sample in zip(queues, data_samples or [], strict=data_samples is not None):
            pad_shape = self._padded(queue.shape[-2]), self._padded(queue.shape[-1])
            history = [{**meta, 'pad_shape': pad_shape} for meta in sample.metainfo.get('history', [])]
            sample.set_metainfo({'pad_shape': pad_shape, 'history': history})
        return {'inputs': {'imgs': imgs}, 'data_samples': data_samples}

    def _padded(self, pixels: int) -> int:
        return -(-pixels // self.pad_size_divisor) * self.pad_size_divisor

    def _stack(self, queues: list[Tensor], ranges: list[Tensor] | None) -> Tensor:
        """Normalise into (B, T, N, 3, Hp, Wp)."""
        length = max(len(queue) for queue in queues)
        height, width = (self._padded(max(queue.shape[dim] for queue in queues)) for dim in (-2, -1))
        imgs = torch.zeros(len(queues), length, queues[0].shape[1], 3, height, width, device=self.mean.device)
        for index, queue in enumerate(queues):
            target = imgs[index, length - len(queue) :, ..., : queue.shape[-2], : queue.shape[-1]]
            target.copy_(queue.flip(2) if self._channel_conversion else queue)
            if ranges is None:
                target.sub_(self.mean).div_(self.std)
            else:
                low, high = ranges[index][..., None, None, None].unbind(2)  # TxNx1x1x1
                target.mul_((high - low) / (255 * self.std)).add_((low - self.mean) / self.std)
        return imgs


def _require_usable(inputs: dict[str, list[Tensor]], samples: list[Det3DDataSample] | None) -> None:
    """Raise an InputError for images of another shape or type, and for NaN and infinity, by sample and camera."""
    for index, queue in enumerate(inputs['img']):
        meta = samples[index].metainfo if samples else {}
        frames = [*meta.get('history', []), meta]
        name = meta.get('sample_idx', f'{index} of the batch')
        if queue.ndim != 5 or queue.shape[2] != 3:
            raise InputError(
                f'images of sample {name} have shape {tuple(queue.shape)}, not (frames, cameras, 3, H, W)'
            )
        if samples and len(frames) != len(queue):
            raise InputError(
                f'a queue of {len(queue)} frames came with metas of {len(frames) - 1} history frames '
                'and the current one'
            )
        if queue.dtype != torch.uint8 and not queue.is_floating_point():
            raise InputError(
                f'images of sample {name} are {queue.dtype}, not uint8 or floating point: scale them to 0..255'
            )
        ranges = inputs.get('img_range')
        finite = torch.ones(queue.shape[:2], dtype=torch.bool) if ranges is None else ranges[index].isfinite().all(2)
        if queue.is_floating_point():
            finite = finite & queue.flatten(2).sum(2, dtype=torch.float32).isfinite().to(finite.device)
        if not finite.all():
            frame, camera = finite.logical_not().nonzero()[0].tolist()
            found = frames[frame].get('sample_idx', name) if samples else name
            raise InputError(
                f'the image of {camera_name(meta, camera)} of sample {found} has values that are not finite'
            )
