"""What is to come: how long jobs will take, and when they will begin and end. Pure: no clock, no I/O."""

from agent.forecast.estimator import Estimator, Progress
from agent.forecast.work import Running, Span, Waiting, Work, foresee, may_start

__all__ = ["Estimator", "Progress", "Running", "Span", "Waiting", "Work", "foresee", "may_start"]
