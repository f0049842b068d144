"""A device that only pretends to be one: its tensors compute on the CPU, and refuse what those of a GPU refuse.

Its name is 'meta': the one type of device, beside the CPU, that every build of PyTorch moves and creates tensors on
and runs backward passes for. PyTorch's own tensors of that type have no values; these have.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

import bevformer_plugin

DEVICE = torch.device('meta')
PACKAGE = Path(bevformer_plugin.__file__).parent
PROJECT = 'bevformer_plugin'  # namespace of operators that check the devices of their arguments themselves
aten = torch.ops.aten
# A GPU's tensor can be indexed by one on the CPU, which is then copied.
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
# These take a single number from the CPU, beside everything that is computed value by value.
TAKING_NUMBERS = {aten.fill.Tensor, aten.fill_.Tensor, aten.masked_fill.Tensor, aten.masked_fill_.Tensor}
# The result or its shape depends on values, so that the CPU waits for the GPU.
WAITING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.bincount.default,
    aten.equal.default,
    aten._linalg_check_errors.default,
}


class WrongDeviceError(RuntimeError):
    """An operator takes tensors of two devices."""


class UndefinedWriteError(RuntimeError):
    """An operator writes several values to one place, of which a GPU keeps any."""


class PretendedTensor(Tensor):
    """A tensor on the pretended device.

    Attributes:
        on_cpu: its values.
    """

    on_cpu: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]

    @staticmethod
    def __new__(cls, on_cpu: Tensor) -> 'PretendedTensor':
        made = Tensor._make_wrapper_subclass(
            cls,
            on_cpu.shape,
            strides=on_cpu.stride(),
            storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype,
            layout=on_cpu.layout,
            device=DEVICE,
        )
        made.on_cpu = on_cpu
        return made

    def __repr__(self) -> str:
        return f'{self.on_cpu!r} on the pretended device'

    @classmethod
    def __torch_dispatch__(cls, func: OpOverload, types: tuple, args: tuple = (), kwargs: dict | None = None):
        raise WrongDeviceError(f'{func} outside of the block in which tensors can be on the pretended device')


class _PythonFunctions(TorchFunctionMode):
    """Does by operators what PyTorch does for a device of this type by itself, without values."""

    def __torch_function__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get('device') is not None:
            return func(*args, **{**kwargs, 'device': None}).to(kwargs['device'])
        if args and isinstance(args[0], PretendedTensor):
            tensor, *rest = args
            if func is Tensor.new_tensor:
                return torch.as_tensor(*rest, **{'dtype': tensor.dtype, **kwargs}).to(DEVICE, copy=True)
            if func is Tensor.tolist:
                return tensor.cpu().tolist()
            if func in (Tensor.__getitem__, Tensor.__setitem__):
                return func(tensor, _with_tensors(rest[0]), *rest[1:])
        return func(*args, **kwargs)


def _for_the_cpu(function: Callable, device_type: str, *arguments: object, **keywords: object) -> object:
    """Ask of the CPU what PyTorch knows of no device of this type: whether half precision is wanted."""
    return function('cpu' if device_type == DEVICE.type else device_type, *arguments, **keywords)


def _with_tensors(index: object) -> object:
    """Make tensors of the lists and arrays of an index."""
    if isinstance(index, tuple):
        return tuple(_with_tensors(part) for part in index)
    return torch.as_tensor(index) if isinstance(index, (list, np.ndarray)) else index


class PretendedDevice(TorchDispatchMode):
    """Within this block, tensors can be on the pretended device.

    Operators refuse tensors of two devices as they do for a GPU.

    Attributes:
        waits: how often the CPU would have waited for a GPU within :meth:`watched`, by place in the package and
            operator: 'layers/encoder.py forward: nonzero'.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self._watching = False

    def __enter__(self) -> 'PretendedDevice':
        self._entered = ExitStack()
        self._entered.enter_context(_PythonFunctions())
        for name in ('autocast', 'is_autocast_enabled'):
            self._entered.enter_context(patch.object(torch, name, partial(_for_the_cpu, getattr(torch, name))))
        super().__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        self._entered.close()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count what waits for the device within a block."""
        self._watching = True
        try:
            yield
        finally:
            self._watching = False

    def __torch_dispatch__(self, func: OpOverload, types: tuple, args: tuple = (), kwargs: dict | None = None):
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        comes_from_there = any(isinstance(tensor, PretendedTensor) for tensor in tensors)
        goes_there = _goes_there(func, args, kwargs, comes_from_there)
        if not comes_from_there and not goes_there:
            return func(*args, **kwargs)
        if comes_from_there:
            _refuse_two_devices(func, tensors)
            _refuse_undefined_writes(func, args)
        if self._watching and _waits(func, args, kwargs, goes_there):
            self.waits[f'{_place()}: {func.overloadpacket.__name__}'] += 1
        if kwargs.get('device') is not None:
            kwargs['device'] = torch.device('cpu')
        cpu_args, cpu_kwargs = tree_map_only(PretendedTensor, lambda tensor: tensor.on_cpu, (args, kwargs))
        if func is aten._to_copy.default:
            cpu_kwargs.pop('non_blocking', None)
        result = func(*cpu_args, **cpu_kwargs)
        if not goes_there:
            return result
        made = tree_map_only(Tensor, PretendedTensor, result)
        return return_and_correct_aliasing(func, args, kwargs, made) if comes_from_there else made


def _goes_there(func: OpOverload, args: tuple, kwargs: dict, comes_from_there: bool) -> bool:
    """Tell whether what an operator returns is on the pretended device."""
    if kwargs.get('device') is not None:
        return torch.device(kwargs['device']) == DEVICE
    if func is aten.copy_.default:
        return isinstance(args[0], PretendedTensor)
    return comes_from_there


def _refuse_two_devices(func: OpOverload, tensors: Sequence[Tensor]) -> None:
    """Raise a WrongDeviceError for tensors on the CPU that an operator of a GPU would not take."""
    if func in {aten._to_copy.default, aten.copy_.default} or func.namespace == PROJECT:
        return
    takes_numbers = torch.Tag.pointwise in func.tags or func in TAKING_NUMBERS
    for place, tensor in enumerate(tensors):
        if isinstance(tensor, PretendedTensor):
            continue
        assert tensor.device != DEVICE, f'{func} takes a tensor without values'
        is_written = func._schema.is_mutable and place == 0
        is_index = func in INDEXING and (tensor.dtype in (torch.int64, torch.int32, torch.bool, torch.uint8))
        is_number = tensor.dim() == 0 and (takes_numbers or func in INDEXING)
        if is_written or not (is_index or is_number):
            found = ', '.join(
                f'{tuple(each.shape)} on the {"device" if isinstance(each, PretendedTensor) else "CPU"}'
                for each in tensors
            )
            raise WrongDeviceError(f'{func} in {_place()} takes tensors of two devices: {found}')


def _refuse_undefined_writes(func: OpOverload, args: tuple) -> None:
    """Raise an UndefinedWriteError for different values that are put to one place by numbers."""
    if func not in INDEXING or func is aten.index.Tensor or (len(args) > 3 and args[3]) or args[2].numel() == 1:
        return
    numbers = [getattr(index, 'on_cpu', index) for index in args[1] if index is not None]
    if any(index.dtype in (torch.bool, torch.uint8) for index in numbers):
        return  # the places of a mask are different ones
    places = torch.stack([index.flatten() for index in torch.broadcast_tensors(*numbers)], dim=1)
    if len(places.unique(dim=0)) < len(places):
        raise UndefinedWriteError(f'{func} in {_place()} writes several values to one place')


def _waits(func: OpOverload, args: tuple, kwargs: dict, goes_there: bool) -> bool:
    """Tell whether a GPU would have to catch up with the CPU before an operator can return."""
    if func is aten._to_copy.default or func is aten.copy_.default:
        source = isinstance(args[0] if func is aten._to_copy.default else args[1], PretendedTensor)
        asynchronous = kwargs.get('non_blocking', args[2] if len(args) > 2 else False)
        return source != goes_there and not (goes_there and asynchronous)
    if func in INDEXING:
        return _indexing_waits(func, args)
    if func is aten.repeat_interleave.Tensor:
        return kwargs.get('output_size') is None
    return func in WAITING


def _indexing_waits(func: OpOverload, args: tuple) -> bool:
    """Tell whether an index is to be copied to the device, or a mask whose places are to be counted."""
    indices = [index for index in args[1] if index is not None]
    if any(not isinstance(index, PretendedTensor) for index in indices):
        return True
    masks = [index for index in indices if index.dtype in (torch.bool, torch.uint8)]
    fills = func is not aten.index.Tensor and len(indices) == len(masks) == 1 and args[2].numel() == 1
    return bool(masks) and not fills  # a single value is filled in without counting


def _place() -> str:
    """Name the function of the package that has called an operator."""
    frame = sys._getframe()
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            return f'{path.relative_to(PACKAGE)} {frame.f_code.co_name}'
        frame = frame.f_back
    return 'a backward pass or test'
