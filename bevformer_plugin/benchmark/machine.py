"""On what was measured."""

import os
import platform
import re
from pathlib import Path

import torch


def describe_machine() -> dict[str, str | int]:
    """Names of CPU (and GPU), cores, threads of torch and its version."""
    cpuinfo = Path('/proc/cpuinfo')
    model = re.search(r'model name\s*: (.*)', cpuinfo.read_text()) if cpuinfo.is_file() else None
    gpu = {'GPU': torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        'CPU': model[1] if model else platform.processor(),
        'cores': os.cpu_count(),
        **gpu,
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
    }
