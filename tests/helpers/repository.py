"""Where things lie in the repository; tools that tests start run in ``REPO``."""

from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
CONFIGS = REPO / 'configs' / 'bevformer'
NANO_WEIGHTS = REPO / 'projects' / 'synthetic_world' / 'bevformer_nano.pth'
