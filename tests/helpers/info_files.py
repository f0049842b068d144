"""Info files that tests write."""

import pickle
from pathlib import Path


def write_infos(path: Path, content: object) -> Path:
    """Write what a test gives as the content of an info file, right or wrong, and return the path."""
    path.write_bytes(pickle.dumps(content))
    return path
