"""The loaded model: the library, behind the few calls that the scheduler makes."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime_genai as og  # type: ignore[import-untyped]

from agent.contract.errors import Code, JobError
from agent.engines.worker.facts import ModelError, read
from agent.engines.worker.sampling import Logits, Options
from agent.engines.worker.words import Words

# A conversation is encoded at once when it is shorter than this many characters, and otherwise tried by ever
# longer beginnings: a megabyte of Chinese takes 4 s, in which nothing else runs, and its first part is enough
# to know that the window is exceeded.
_PROBE = 16 << 10
# llguidance's own key in a schema. Where white space is allowed, small models fill their answers with it.
_COMPACT = {"x-guidance": {"whitespace_flexible": False}}


class Model:
    """A model folder, loaded.

    Args:
        folder: where genai_config.json is.
        threads: of one inference step; None leaves it to onnxruntime, which takes one a physical core.

    Raises:
        ModelError: it cannot be loaded.

    """

    def __init__(self, folder: Path, threads: int | None) -> None:
        self.facts = read(folder)
        og.disable_telemetry_events()
        try:
            config = og.Config(str(folder))
            if threads is not None:
                options = {"session_options": {"intra_op_num_threads": threads}}
                config.overlay(json.dumps({"model": {"decoder": options}}))
            self._model = og.Model(config)
            self._tokenizer = og.Tokenizer(self._model)
        except RuntimeError as error:
            raise ModelError(
                f"the model {folder.name} cannot be loaded: see why in the box's log, or pull it again"
            ) from error
        self.provider = str(self._model.device_type).lower()
        self._adds_space = str(self._tokenizer.decode(self._tokenizer.encode("a"))).startswith(" ")

    def prompt(self, conversation: bytes) -> list[int]:
        """Return the tokens of a conversation, its chat template applied.

        Args:
            conversation: UTF-8 JSON, ``[{"role": …, "content": …}, …]``.

        Raises:
            JobError: the template does not take it, or it certainly exceeds the window.

        """
        try:
            text = self._tokenizer.apply_chat_template(conversation.decode(), add_generation_prompt=True)
        except RuntimeError as error:
            raise JobError(
                Code.BAD_REQUEST, f"the model's chat template does not take these messages: {str(error).strip()[:300]}"
            ) from error
        end = _PROBE
        while end < len(text):
            tokens = len(self._tokenizer.encode(text[:end]))
            if tokens > 2 * self.facts.context:
                raise JobError(
                    Code.TOO_LARGE,
                    f"the prompt has more than {tokens:,} tokens, and the model's window is {self.facts.context:,}",
                )
            end *= 4
        return [int(token) for token in self._tokenizer.encode(text)]

    def words(self) -> Words:
        """Begin an answer's text."""
        return Words(self._tokenizer.create_stream(), adds_space=self._adds_space)

    def cache(self, capacity: int) -> "Cache":
        """Make an empty cache for jobs without a schema.

        Raises:
            RuntimeError, MemoryError: the library's, as from every call on a cache.

        """
        params = og.GeneratorParams(self._model)
        params.set_search_options(max_length=capacity, do_sample=False)
        return Cache(og.Generator(self._model, params))

    def guided_cache(self, capacity: int, schema: str, options: Options | None, seed: int | None) -> "Cache":
        """Make an empty cache for one job whose answer must match ``schema``; drawn if there are ``options``.

        Raises:
            JobError: the schema cannot be used.

        """
        params = og.GeneratorParams(self._model)
        params.set_search_options(max_length=capacity, do_sample=options is not None)
        if options is not None:
            params.set_search_options(temperature=options.temperature, top_p=options.top_p, top_k=options.top_k)
            if seed is not None:
                params.set_search_options(random_seed=seed % 2**31)
        params.set_guidance("json_schema", json.dumps({**json.loads(schema), **_COMPACT}))
        try:
            return Cache(og.Generator(self._model, params))
        except RuntimeError as error:
            if "grammar" not in str(error):
                raise
            raise JobError(Code.BAD_REQUEST, f"the JSON schema cannot be used: {str(error).strip()[:300]}") from error


class Cache:
    """A generator: the tokens that it has computed, and what may come after them."""

    def __init__(self, generator: og.Generator) -> None:
        self._generator = generator

    def rewind(self, length: int) -> None:
        """Forget all tokens but the first ``length``."""
        self._generator.rewind_to(length)

    def append(self, tokens: Sequence[int]) -> None:
        """Compute these tokens."""
        self._generator.append_tokens(np.asarray(tokens, dtype=np.int32))

    def generate(self) -> int:
        """Return the token that the library chooses next. It is computed with the next call."""
        self._generator.generate_next_token()
        return int(self._generator.get_next_tokens()[0])

    def logits(self) -> Logits:
        """Return the scores of every token that could come next."""
        logits: Logits = self._generator.get_logits().reshape(-1)
        return logits
