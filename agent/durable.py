"""Making what was written survive a power cut."""

import os
from pathlib import Path


def synced(path: Path) -> None:
    """Let one file's bytes, or the names in one folder, survive a power cut; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
