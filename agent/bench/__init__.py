"""``edge-slm bench``: what the agent costs on this machine, as ratios between two things in one run.

Every number is taken from outside, by a client over a real broker, against the plainest onnxruntime-genai loop on
the same model and prompts; for pictures, against a closer look or the library's own processor. The two take turns,
and medians are compared, since machines are noisy.
"""

# The measures by their names, which the command line knows without importing them.
ROWS = ("decode", "short-job", "prefix", "stall", "footprint", "throughput")
VISION_ROWS = ("detail", "prepare", "resident", "admitted")
