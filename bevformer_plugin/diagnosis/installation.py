"""Whether this machine and what is installed on it can run the package: parts are used, not only looked up."""

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from pathlib import Path

import mmcv.ops
import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import bevformer_plugin
from bevformer_plugin.benchmark.machine import describe_machine
from bevformer_plugin.errors import InputError
from bevformer_plugin.ops import BACKENDS, MMCV_EXT, backend_name
from bevformer_plugin.ops.native import find_compiler, load_library

from .page import Line, note, ok, wrong

PACKAGE = 'bevformer_plugin'
SUPPORTED_PYTHON = '>=3.10,<3.14'
# Modules of distributions that others provide as well, such as opencv-python with a window system.
MODULES_OF = {'opencv-python-headless': 'cv2'}
LARGEST_ERROR = 1e-4  # of a backend against the definition, on values of about 1


def examine_installation() -> dict[str, list[Line]]:
    """Examine machine and packages, and return the lines of both sections."""
    return {
        'machine': [*_machine(), *_gpus(), *_compiler()],
        'installation': [_python(), _plugin(), *_requirements(), *_mmcv(), *_attention()],
    }


def _machine() -> list[Line]:
    found = describe_machine()
    return [ok('processor', f'{found["CPU"]}, {found["cores"]} cores, torch uses {found["threads"]} threads')]


def _gpus() -> list[Line]:
    if not torch.cuda.is_available():
        driver = shutil.which('nvidia-smi') or Path('/proc/driver/nvidia/version').exists()
        if not driver:
            return [ok('GPU', 'none: everything runs on the processor')]
        build = 'is a build without CUDA' if torch.version.cuda is None else f'is built for CUDA {torch.version.cuda}'
        remedy = 'install a build of torch for the CUDA version that nvidia-smi shows'
        return [note('GPU', f'there is a NVIDIA driver, but torch {torch.__version__} {build}: {remedy}')]
    lines = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        name = f'{properties.name}, {properties.total_memory / 2**30:.0f} GiB'
        try:
            torch.ones(8, 8, device=f'cuda:{index}').matmul(torch.ones(8, 8, device=f'cuda:{index}')).sum().item()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            lines.append(wrong('GPU', f'{name}: cannot compute ({reason}): install a build of torch for this GPU'))
        else:
            lines.append(ok('GPU', f'{name}, computes with CUDA {torch.version.cuda}'))
    return lines


def _compiler() -> list[Line]:
    compiler = find_compiler()
    if compiler is None:
        slow = 'deformable attention runs in plain PyTorch on the processor, which takes several times as long'
        return [note('compiler', f'no g++, c++ or clang++: {slow}; install one, such as the package g++')]
    return [ok('compiler', compiler)]


def _python() -> Line:
    version = platform.python_version()
    if not SpecifierSet(SUPPORTED_PYTHON).contains(version, prereleases=True):
        return wrong('Python', f'{version}: this package needs {SUPPORTED_PYTHON}')
    return ok('Python', f'{version}, {sys.executable}')


def _plugin() -> Line:
    """Compare the package that is imported with the one that is installed, whose start-up file serves other tools."""
    version, folder = bevformer_plugin.__version__, Path(__file__).parents[1]
    found = f'{version}, {folder}'
    try:
        installed = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return note(
            PACKAGE,
            f'{found}: imported from a folder and not installed, so programs that import mmdet3d first do without it: '
            'run pip install --no-deps . there',
        )
    if installed != version:
        return note(
            PACKAGE, f'{found}, while version {installed} is installed: which one is used depends on the folder'
        )
    return ok(PACKAGE, found)


def _requirements() -> list[Line]:
    """Compare the versions of other packages with those that the installed package asks for."""
    try:
        texts = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return [ok('torch', str(torch.__version__))]
    requirements = [Requirement(text) for text in texts]
    needed = [item for item in requirements if item.marker is None or item.marker.evaluate({'extra': ''})]
    lines, fitting = [], []
    for item in needed:
        version = installed_version(item.name)
        if version is None:
            lines.append(wrong(item.name, f'is not installed: pip install "{item.name}{item.specifier}"'))
        elif version and not item.specifier.contains(version, prereleases=True):
            lines.append(
                wrong(
                    item.name,
                    f'{version} is installed, {item.specifier} needed: pip install "{item.name}{item.specifier}"',
                )
            )
        else:
            fitting.append(f'{item.name} {version}'.strip())
    return [*lines, ok('packages', ', '.join(fitting))]


def installed_version(name: str) -> str | None:
    """Return the version of a distribution, '' if another one provides its module, or None if there is neither."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return '' if importlib.util.find_spec(MODULES_OF.get(name, name)) is not None and name in MODULES_OF else None


def _mmcv() -> list[Line]:
    """Say which operators mmcv uses, use one, and say whether other programs find them too."""
    operators = (
        'its compiled operators' if MMCV_EXT == 'compiled' else 'operators of this package in PyTorch (stand-in)'
    )
    found = f'{mmcv.__version__} with {operators}'
    try:
        image, offset, mask = torch.ones(1, 1, 3, 3), torch.zeros(1, 18, 3, 3), torch.ones(1, 9, 3, 3)
        result = mmcv.ops.modulated_deform_conv2d(image, offset, mask, torch.ones(1, 1, 3, 3), None, 1, 1)
    except (RuntimeError, OSError) as error:
        return [
            wrong(
                'mmcv',
                f'{found}, which fail ({str(error).splitlines()[0]}): install mmcv-lite, or mmcv for this torch',
            )
        ]
    if result[0, 0, 1, 1].item() != 9:
        return [
            wrong('mmcv', f'{found}, which compute a wrong convolution: install mmcv-lite, or mmcv for this torch')
        ]
    lines = [ok('mmcv', found)]
    if MMCV_EXT == 'stand-in' and not _starts_finder():
        text = 'programs that import mmdet3d before bevformer_plugin fail, since this environment starts no finder'
        lines.append(note('import order', f'{text}: run pip install --no-deps . in the folder of the package'))
    return lines


def _starts_finder() -> bool:
    """Tell whether Python has started the finder of the stand-in by itself, before anything was imported."""
    return any(getattr(finder, '__module__', '') == '_bevformer_plugin_mmcv_finder' for finder in sys.meta_path)


def _attention() -> list[Line]:
    """Compute deformable attention with the backend of every kind of device, and check the result."""
    lines = []
    for device in ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]:
        subject = f'attention on {device}'
        try:
            name = backend_name(torch.zeros(1, device=device))
            error = _attention_error(name, device)
        except (InputError, RuntimeError, OSError) as problem:
            lines.append(wrong(subject, f'{str(problem).splitlines()[0]}'))
            continue
        if not error < LARGEST_ERROR:
            lines.append(
                wrong(
                    subject,
                    f'backend {name} computes wrongly, by {error:g}: set BEVFORMER_ATTENTION_BACKEND=reference',
                )
            )
        elif device == 'cpu' and name == 'reference' and find_compiler() and load_library() is None:
            lines.append(
                note(
                    subject, f'plain PyTorch, since {find_compiler()} cannot build the operator: its message is above'
                )
            )
        else:
            lines.append(ok(subject, f'backend {name}, within {error:.0e} of the definition'))
    return lines


def _attention_error(name: str, device: str) -> float:
    """Return the largest difference of a backend from the definition, on random values."""
    random = torch.Generator().manual_seed(0)
    shapes, heads, points, rows = [[4, 6], [2, 3]], 2, 3, 10
    value = torch.randn(2, sum(height * width for height, width in shapes), heads, 8, generator=random)
    locations = torch.rand(rows, heads, len(shapes), points, 2, generator=random)
    weights = torch.rand(rows, heads, len(shapes), points, generator=random)
    lengths = torch.tensor([rows - 4, 4])
    expected = BACKENDS['reference'].forward(value, shapes, locations, weights, lengths)
    tensors = [tensor.to(device) for tensor in (value, locations, weights, lengths)]
    found = BACKENDS[name].forward(tensors[0], shapes, *tensors[1:])
    return float((found.cpu() - expected).abs().max())
