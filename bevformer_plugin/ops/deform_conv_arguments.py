"""The settings of modulated deformable convolution, and the checks of its arguments, made before any kernel runs."""

from dataclasses import dataclass

from torch import Size, Tensor

Pair = tuple[int, int]


@dataclass(frozen=True)
class DeformConvSettings:
    """What a modulated deformable convolution is given beside tensors.

    Attributes:
        stride: in pixels, (y, x) as all pairs.
        padding: in pixels, of zeros at both ends.
        dilation: pixels from one tap of the kernel to the next.
        groups: into which channels and outputs are divided; each output sees one group of the channels.
        deform_groups: into which the channels are divided; each has offsets and masks of its own.
    """

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    deform_groups: int

    def __str__(self) -> str:
        return (
            f'stride {self.stride}, padding {self.padding}, dilation {self.dilation}, groups {self.groups}, '
            f'deform_groups {self.deform_groups}'
        )

    def output_size(self, image: Size, weight: Size) -> Pair:
        """Return height and width of the output for the shapes (B, C, H, W) of the images and (O, C, kh, kw)."""
        height, width = (
            (length + 2 * pad - dilate * (taps - 1) - 1) // step + 1
            for length, pad, dilate, taps, step in zip(
                image[2:], self.padding, self.dilation, weight[2:], self.stride, strict=True
            )
        )
        return height, width


def check_deform_conv(
    inputs: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    settings: DeformConvSettings,
) -> None:
    """Refuse arguments of :func:`.modulated_deform_conv.modulated_deform_conv2d` that do not fit each other.

    No values are read, so this does not wait for a GPU and can be traced.

    Raises:
        ValueError: if they do not; the message names all shapes, types or devices.
    """
    tensors = {'inputs': inputs, 'offset': offset, 'mask': mask, 'weight': weight}
    if bias is not None:
        tensors['bias'] = bias
    given = ', '.join(f'{name} {tuple(tensor.shape)}' for name, tensor in tensors.items())
    if any(tensor.ndim != 4 for name, tensor in tensors.items() if name != 'bias') or 0 in (
        *inputs.shape,
        *weight.shape,
    ):
        raise ValueError(f'arguments of the modulated deformable convolution need four axes, none empty: {given}')
    _check_settings(inputs.shape[1], len(weight), settings)
    taps = settings.deform_groups * weight.shape[2] * weight.shape[3]
    size = settings.output_size(inputs.shape, weight.shape)
    if min(size) < 1:
        raise ValueError(f'the modulated deformable convolution has no output: {given} with {settings}')
    wanted = {
        'offset': (len(inputs), 2 * taps, *size),
        'mask': (len(inputs), taps, *size),
        'weight': (len(weight), inputs.shape[1] // settings.groups, *weight.shape[2:]),
        'bias': (len(weight),),
    }
    for name, shape in wanted.items():
        if name in tensors and tensors[name].shape != shape:
            raise ValueError(
                f'{name} of the modulated deformable convolution must be {shape}, got {given} with {settings}'
            )
    if not offset.is_floating_point() or not inputs.is_floating_point():
        raise ValueError(f'inputs and offset must be of floating types, got {inputs.dtype} and {offset.dtype}')
    for name, tensor in tensors.items():
        if tensor.device != inputs.device or (name != 'offset' and tensor.dtype != inputs.dtype):
            raise ValueError(
                f'inputs are {inputs.dtype} on {inputs.device}, {name} is {tensor.dtype} on {tensor.device}'
            )


def _check_settings(channels: int, outputs: int, settings: DeformConvSettings) -> None:
    """Refuse settings that make no convolution, or do not divide the channels and outputs."""
    groups, deform_groups = settings.groups, settings.deform_groups
    if min(*settings.stride, *settings.dilation, groups, deform_groups) < 1 or min(settings.padding) < 0:
        raise ValueError(
            f'settings of the modulated deformable convolution must be positive, padding not negative: {settings}'
        )
    if channels % groups or outputs % groups or channels % deform_groups:
        raise ValueError(
            f'{channels} channels and {outputs} outputs do not divide by groups {groups} and '
            f'deform_groups {deform_groups}'
        )
