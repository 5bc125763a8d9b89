"""An endpoint like NVIDIA's NIM that does as it is told: for tests, and the bench's cloud.

`app` is the ASGI application, `wire` one request and the way back, `answer` its words, `faults` what there can be
instead of them, `checks` what is refused without being planned. It imports the standard library alone, and any ASGI
server serves it.
"""

from agent.standin.app import StandIn
from agent.standin.checks import KEY, MODELS
from agent.standin.faults import Fault, Later, Plan, Refusal, Stream, at_random
from agent.standin.wire import Seen

__all__ = ["KEY", "MODELS", "Fault", "Later", "Plan", "Refusal", "Seen", "StandIn", "Stream", "at_random"]
