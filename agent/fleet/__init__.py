"""The operator's side of remote configuration: who is in a fleet, how its boxes are, a change on its way to them."""

from agent.fleet.login import operators
from agent.fleet.rollout import Result, roll_out
from agent.fleet.targets import Target, changed, chosen
from agent.fleet.watch import NOTHING, Standing, Watch

__all__ = ["NOTHING", "Result", "Standing", "Target", "Watch", "changed", "chosen", "operators", "roll_out"]
