"""From a GGUF file to a folder that onnxruntime-genai loads, without torch.

Run as ``python -m agent.models.conversion FILE.gguf FOLDER``, always in a child process: numpy, onnx and half a
gigabyte of working memory stay out of the caller and go back to the system when it ends.

A GGUF holds everything a model needs (hyperparameters, vocabulary, chat template, weights), so nothing binary
is shipped with this project. The rooms: `llama` reads the weights and writes them out again, `kquant` quantizes them,
`graph` writes the ONNX graph around them, `sidecars` the tokenizer and configuration files.
"""
