"""Models on this box: what there is to have, fetching it, whether what lies here is whole, and whether it fits.

Light to import: numpy, onnx, the engine and the hub's client are never loaded by that.
"""

from agent.models.catalogue import Catalogue, Entry, ModelError, catalogue, lookup
from agent.models.installing import Progress
from agent.models.memory import Footprint, footprint, preflight
from agent.models.pull import pull
from agent.models.store import Description, content, describe, installed, made_for, resolve, verify

__all__ = [
    "Catalogue",
    "Description",
    "Entry",
    "Footprint",
    "ModelError",
    "Progress",
    "catalogue",
    "content",
    "describe",
    "footprint",
    "installed",
    "lookup",
    "made_for",
    "preflight",
    "pull",
    "resolve",
    "verify",
]
