"""Description of the machine that measured."""

import os
import platform
import re
from pathlib import Path

import torch


def describe_machine() -> dict[str, str | int]:
    """Return the names of CPU and GPU, the number of cores, and torch's threads and version."""
    cpuinfo = Path('/proc/cpuinfo')
    model = re.search(r'model name\s*: (.*)', cpuinfo.read_text()) if cpuinfo.is_file() else None
    gpu = {'GPU': torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        'CPU': model[1] if model else platform.processor(),
        'cores': os.cpu_count() or 1,
        **gpu,
        'threads': torch.get_num_threads(),
        'torch': str(torch.__version__),
    }
