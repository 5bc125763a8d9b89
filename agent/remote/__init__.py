"""Settings from afar: what is published on a box's ``config/desired``, judged, tried, kept, and answered.

What is published is a layer over the box's own files, YAML or JSON, taken as a whole or not at all. It is kept on disk
while it holds, so a box that starts without a broker starts with it.
"""

from agent.remote.allowed import objections
from agent.remote.force import in_force
from agent.remote.layer import MOST_BYTES, Verdict, digest, laid_over
from agent.remote.trying import Remote

__all__ = ["MOST_BYTES", "Remote", "Verdict", "digest", "in_force", "laid_over", "objections"]
