"""The other end of the contract: how a device asks. The command line, the demo and the bench ask through it.

It is an ordinary MQTT client with a clean session, and it keeps nothing: a device that must not lose an answer
uses a persistent session and a fixed name of its own.
"""

from agent.client.device import Client, Event
from agent.client.link import ClientError, Link, host_and_port

__all__ = ["Client", "ClientError", "Event", "Link", "host_and_port"]
