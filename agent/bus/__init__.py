"""The MQTT session: requests in, answers out, over any number of connections.

A tour: `base` is what the rest of the house sees; `session` is the one client identity, reconnecting; `outflow` is what
it has under way to the broker; `connection` is one network connection; `network` is its thread, and the only importer
of paho; the others are their parts.
"""

from agent.bus.base import Bus, BusError, Delivery, Shorten, Stats, Subscription, TryLaterError
from agent.bus.session import MqttBus

__all__ = ["Bus", "BusError", "Delivery", "MqttBus", "Shorten", "Stats", "Subscription", "TryLaterError"]
