"""The plainest loop that onnxruntime-genai allows: what the engine's speed is measured against.

``python -m agent.engines.worker.bare FOLDER`` reads a JSON object from standard input and prints a list with
one object a prompt and repeat, in order::

    {"prompts": [[{"role": "user", "content": "…"}], …], "max_tokens": 100, "repeats": 3, "threads": 4}
    [{"prompt_tokens": 40, "tokens": [260, …], "first_token_s": 0.1, "decode_tokens_per_s": 100.0}, …]

Without ``threads`` the library decides. Each runs in a new generator, whose making counts to the first token, as it
does in the engine. Greedy; the cache has exactly the room that is needed; no text is made.
"""

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import onnxruntime_genai as og  # type: ignore[import-untyped]

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def main() -> None:
    """Run what standard input asks for."""
    asked = json.load(sys.stdin)
    config = og.Config(sys.argv[1])
    if threads := asked.get("threads"):
        session = {"intra_op_num_threads": threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
    model = og.Model(config)
    tokenizer = og.Tokenizer(model)
    results = []
    for _ in range(asked.get("repeats", 1)):
        for messages in asked["prompts"]:
            text = tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True)
            results.append(run(model, tokenizer.encode(text), asked["max_tokens"]))
    json.dump(results, sys.stdout)


def run(model: og.Model, prompt: "NDArray[np.int32]", max_tokens: int) -> dict[str, Any]:
    """Generate up to ``max_tokens`` tokens; return them and the times, in seconds."""
    begun = time.perf_counter()
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(prompt) + max_tokens, do_sample=False)
    generator = og.Generator(model, params)
    generator.append_tokens(prompt)
    generator.generate_next_token()
    tokens = [int(generator.get_next_tokens()[0])]
    first = time.perf_counter()
    while not generator.is_done():
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    ended = time.perf_counter()
    rate = (len(tokens) - 1) / (ended - first) if len(tokens) > 1 else None
    return {
        "prompt_tokens": len(prompt),
        "tokens": tokens,
        "first_token_s": first - begun,
        "decode_tokens_per_s": rate,
    }


if __name__ == "__main__":
    main()
