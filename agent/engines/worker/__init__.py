"""The inference process: loads one model and runs jobs on it, several at once.

The only importer of onnxruntime_genai. It knows its parent by `agent.engines.wire` alone.
"""
