"""The public wire contract, version 1: what clients publish and what they get back.

Pure data and parsing; it knows no broker, no engine and no clock. The prose is in ``docs/contract.md``.
"""

VERSION = 1
