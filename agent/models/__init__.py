"""Models on this box: what there is to have, fetching it, and whether what lies here is whole.

Light to import: numpy, onnx and the engine are never loaded in the calling process.
"""

from agent.models.catalogue import CATALOGUE, Entry, ModelError, lookup
from agent.models.pull import Progress, pull
from agent.models.store import Description, describe, installed, resolve, verify

__all__ = [
    "CATALOGUE",
    "Description",
    "Entry",
    "ModelError",
    "Progress",
    "describe",
    "installed",
    "lookup",
    "pull",
    "resolve",
    "verify",
]
