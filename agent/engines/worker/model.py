"""The loaded model: the library, behind the few calls that the scheduler makes."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime_genai as og  # type: ignore[import-untyped]

from agent.contract.errors import Code, JobError
from agent.engines.worker import limits
from agent.engines.worker.crops import Crops
from agent.engines.worker.facts import ModelError, read
from agent.engines.worker.faults import NATIVE
from agent.engines.worker.provider import Provider
from agent.engines.worker.rope import INPUT, steered
from agent.engines.worker.sampling import Logits, Options
from agent.engines.worker.vision import inputs, marked
from agent.engines.worker.words import Words
from agent.kernel_files import total_bytes

# A conversation is encoded at once when it is shorter than this many characters, and otherwise tried by ever
# longer beginnings: a megabyte of Chinese takes 4 s, in which nothing else runs, and its first part is enough
# to know that the window is exceeded.
_PROBE = 16 << 10
# llguidance's own key in a schema. Where white space is allowed, small models fill their answers with it.
_COMPACT = {"x-guidance": {"whitespace_flexible": False}}
# A picture's prefill is one call to us, in which the decoder takes so many tokens at a time: the same logits to the
# last bit, without attention scores of all tokens by all (0.8 GB for 2,500 of them in Phi-3.5-vision).
_CHUNK = 256
# The room of a cache that is made to see whether the provider still computes; enough for one that pads its prompts.
_TRIAL = 128
# Threads that spin while they wait for the next operator win a text model 30 % where it is alone (138 tokens/s and not
# 104, two threads), and the small operators of a vision tower nothing (3.8 frames/s and not 4.8). Beside a text model
# they take its cores from it.
_QUIET = {"session.intra_op.allow_spinning": "0"}
# The vision tower's memory goes back to the system before the decoder runs. It would stay for the next picture: of the
# small test model, 410 MB between two pictures at 16 crops and not 130, and at its peak 464 and not 317. Taking it
# again costs a page fault for each 4 KB: a third of that tower's time, and some percent of a full-size one's.
_SHRINK = {"memory.enable_memory_arena_shrinkage": "cpu:0"}
# The library reads an input where it lies, with every call: these lie there for ever.
_FLAGS = {flag: np.array([flag]) for flag in (False, True)}


class Model:
    """A model folder, loaded.

    Args:
        folder: where genai_config.json is.
        threads: of one inference step; None leaves it to the library, which takes half the processors that the kernel
            counts.
        provider: what it runs on.

    Attributes:
        provider: the name of what it runs on.
        narrowed: see `agent.engines.wire.Ready`.
        whole_prompts: see `Provider`.
        token_bytes: how much of the box's memory a token takes in a cache; 0 if that lies elsewhere, or nobody knows.

    Raises:
        ModelError: it cannot be loaded.

    """

    def __init__(self, folder: Path, threads: int | None, provider: Provider = Provider()) -> None:  # noqa: B008
        self.facts = read(folder)
        self.provider = provider.name
        self.narrowed = False
        self.whole_prompts = provider.whole_prompts
        self.token_bytes = provider.token_bytes(self.facts)
        og.disable_telemetry_events()
        provider.prepare()
        try:
            config = og.Config(str(folder))
            provider.choose(config, json.loads((folder / "genai_config.json").read_bytes())["model"])
            graph = self._steered(folder)  # the library reads it where it lies, until the model is made
            if graph is not None:
                config.add_model_data(self.facts.graph, graph)
            if options := self._options(threads):
                config.overlay(json.dumps({"model": options}))
            self._model = og.Model(config)
            self._tokenizer = og.Tokenizer(self._model)
        except (OSError, RuntimeError) as error:
            on = "" if provider.name == "cpu" else f" on {provider.name}"
            raise ModelError(
                f"the model {folder.name} cannot be loaded{on}: see why in the box's log, or pull it again"
            ) from error
        # What could never be held is told before anybody asks for it, and refused before all of it is tokenised.
        weights = sum(file.stat().st_size for file in folder.glob("*.onnx*") if file.is_file())
        fits = limits.window(self.facts.context, self.token_bytes, total_bytes() - weights)
        self.facts = replace(self.facts, context=fits)
        self._adds_space = str(self._tokenizer.decode(self._tokenizer.encode("a"))).startswith(" ")

    def _options(self, threads: int | None) -> dict[str, object]:
        """Return what is ours in the library's configuration. All parts of a model go by the decoder's session."""
        session: dict[str, object] = {} if threads is None else {"intra_op_num_threads": threads}
        if self.facts.vision:
            tower = {"run_options": _SHRINK} if self.provider == "cpu" else {}
            return {"decoder": {"session_options": session | _QUIET}, "vision": tower}
        options: dict[str, object] = {"decoder": {"session_options": session}} if session else {}
        # As a decoder of no family, or else the library computes all of a long job again at its 4,097th token.
        return options if self.facts.switch is None else options | {"type": "decoder"}

    def _steered(self, folder: Path) -> bytes | None:
        """Return the graph in which we choose the rotary factors; without it, the window ends with the first ones."""
        if self.facts.switch is None:
            return None
        graph = steered((folder / self.facts.graph).read_bytes(), self.facts.switch)
        if graph is None:
            self.facts, self.narrowed = self.facts.unsteered, True
        return graph

    def prompt(self, conversation: bytes, pictures: Sequence[int] = ()) -> list[int]:
        """Return the tokens of a conversation, its chat template applied; those of picture k, from 1 on, are -k.

        Args:
            conversation: UTF-8 JSON; see `agent.engines.wire.Submit`.
            pictures: of each picture in it, how many tokens it is.

        Raises:
            JobError: the model or its template does not take it, or it certainly exceeds the window.

        """
        if pictures and not self.facts.vision:
            raise JobError(Code.UNSUPPORTED, "the model on this box takes text only: send the job without pictures")
        # A user who writes the model's own `<|image_1|>` has written eleven characters, and not shown a picture: the
        # places are marked by what nobody can guess.
        mark = secrets.token_hex(16)
        asked = marked(conversation, mark) if pictures else conversation.decode()
        first, *rest = self._templated(asked).split(mark)
        if len(rest) != len(pictures):
            raise JobError(Code.BAD_REQUEST, "the model's chat template drops a picture: send it in a user's message")
        # Each piece by itself, as the library's own processor does it.
        tokens = self._encoded(first)
        for number, (count, piece) in enumerate(zip(pictures, rest, strict=True), 1):
            tokens += [-number] * count + self._encoded(piece)
        return tokens

    def _templated(self, conversation: str) -> str:
        try:
            return str(self._tokenizer.apply_chat_template(conversation, add_generation_prompt=True))
        except RuntimeError as error:
            raise JobError(
                Code.BAD_REQUEST, f"the model's chat template does not take these messages: {str(error).strip()[:300]}"
            ) from error

    def _encoded(self, text: str) -> list[int]:
        end = _PROBE
        while end < len(text):
            tokens = len(self._tokenizer.encode(text[:end]))
            if tokens > 2 * self.facts.context:
                raise JobError(
                    Code.TOO_LARGE,
                    f"the prompt has more than {tokens:,} tokens, "
                    f"and the model's window here is {self.facts.context:,}",
                )
            end *= 4
        return [int(token) for token in self._tokenizer.encode(text)]

    def works(self) -> bool:
        """Whether the provider still computes, which the processor always does.

        A device that is lost, or has met an illegal address, fails each call from then on (CUDA's "sticky" errors).
        """
        if self.provider == "cpu":
            return True
        try:
            cache = self.cache(_TRIAL, long=False)
            cache.append([*self.facts.end][:1])
            cache.generate()
        except NATIVE:
            return False
        return True

    def words(self) -> Words:
        """Begin an answer's text."""
        return Words(self._tokenizer.create_stream(), adds_space=self._adds_space)

    def cache(self, capacity: int, *, long: bool) -> "Cache":
        """Make an empty cache for jobs without a schema, with the other rotary factors if it is ``long``.

        Raises:
            RuntimeError, MemoryError: the library's, as from every call on a cache.

        """
        return self._cache(self._params(capacity, sampled=False), long=long)

    def own_cache(
        self, capacity: int, schema: str | None, options: Options | None, seed: int | None, *, long: bool
    ) -> "Cache":
        """Make an empty cache for one job, whose tokens the library chooses: drawn if there are ``options``.

        Args:
            capacity: tokens it has room for.
            schema: what the answer must match, if anything.
            options: how its tokens are drawn.
            seed: of the draws.
            long: whether it has the other rotary factors.

        Raises:
            JobError: the schema cannot be used.

        """
        params = self._params(capacity, sampled=options is not None)
        if options is not None:
            params.set_search_options(temperature=options.temperature, top_p=options.top_p, top_k=options.top_k)
            if seed is not None:
                params.set_search_options(random_seed=seed % 2**31)
        if schema is not None:
            params.set_guidance("json_schema", json.dumps({**json.loads(schema), **_COMPACT}))
        try:
            return self._cache(params, long=long)
        except RuntimeError as error:
            if "grammar" not in str(error):
                raise
            raise JobError(Code.BAD_REQUEST, f"the JSON schema cannot be used: {str(error).strip()[:300]}") from error

    def _cache(self, params: og.GeneratorParams, *, long: bool) -> "Cache":
        generator = og.Generator(self._model, params)
        if self.facts.switch is not None:
            generator.set_model_input(INPUT, _FLAGS[long])
        return Cache(generator)

    def _params(self, capacity: int, *, sampled: bool) -> og.GeneratorParams:
        params = og.GeneratorParams(self._model)
        params.set_search_options(max_length=capacity, do_sample=sampled)
        if self.facts.vision:
            params.set_search_options(chunk_size=_CHUNK)
        return params


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

    def look(self, tokens: Sequence[int], pictures: Sequence[Crops]) -> None:
        """Compute the first tokens of a prompt, all its pictures' among them."""
        self._generator.set_inputs(inputs(tokens, pictures))

    def generate(self) -> int:
        """Return the token that the library chooses next. It is computed with the next call."""
        self._generator.generate_next_token()
        return int(self._generator.get_next_tokens()[0])

    def logits(self) -> Logits:
        """Return the scores of every token that could come next."""
        logits: Logits = self._generator.get_logits().reshape(-1)
        return logits
