"""Batches of frame queues: channel order, normalisation and padding, on the device."""

import torch
from mmdet3d.registry import MODELS
from mmengine.model import ImgDataPreprocessor
from torch import Tensor


@MODELS.register_module()
class BEVFormerDataPreprocessor(ImgDataPreprocessor):
    """Turns collated frame queues into one normalised tensor.

    Samples may have different queue lengths and image sizes: frames are aligned at the end (the current frame is the
    last), images at the top left; what is missing is 0 *after* normalisation.

    Args:
        mean: of the three channels, in the order after ``bgr_to_rgb``.
        std: likewise.
        pad_size_divisor: padded height and width are multiples of it.
        bgr_to_rgb: images arrive as BGR and the backbone expects RGB.
    """

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
            gain ``pad_shape`` = (Hp, Wp).

        Raises:
            ValueError: if the samples have different numbers of cameras, or a queue and its metas differ in length.
        """
        data = self.cast_data(data)
        queues, data_samples = data['inputs']['img'], data.get('data_samples')
        cameras = {queue.shape[1] for queue in queues}
        if len(cameras) > 1:
            raise ValueError(f'the samples of a batch have different numbers of cameras: {sorted(cameras)}')
        imgs = self._stack(queues, data['inputs'].get('img_range'))
        pad_shape = tuple(imgs.shape[-2:])
        for queue, sample in zip(queues, data_samples or [], strict=data_samples is not None):
            history = sample.metainfo.get('history', [])
            if len(history) + 1 != len(queue):
                raise ValueError(
                    f'a queue of {len(queue)} frames came with metas of {len(history)} history frames '
                    'and the current one'
                )
            sample.set_metainfo({'pad_shape': pad_shape, 'history': [{**m, 'pad_shape': pad_shape} for m in history]})
        return {'inputs': {'imgs': imgs}, 'data_samples': data_samples}

    def _stack(self, queues: list[Tensor], ranges: list[Tensor] | None) -> Tensor:
        """Normalise into (B, T, N, 3, Hp, Wp)."""
        length = max(len(queue) for queue in queues)
        height, width = (
            -(-max(queue.shape[dim] for queue in queues) // self.pad_size_divisor) * self.pad_size_divisor
            for dim in (-2, -1)
        )
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
