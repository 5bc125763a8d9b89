"""edge-slm-agent: small language models on an edge box, over MQTT."""

__version__ = "0.1.0"
