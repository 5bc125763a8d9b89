"""The service as systemd runs it: installed, killed, hung, upgraded and removed, on a machine that is there for that.

``scripts/systemd-proof`` boots such a machine and runs this in it, by its own Python: nothing here imports the agent.
"""
