"""The local engine with a real model."""

import asyncio
import json
import random
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.contract.errors import Code, JobError
from agent.contract.jobs import ResponseFormat
from agent.engines.base import Started, Text
from agent.engines.local import LocalEngine
from tests.engines.running import PHOTOGRAPH, answer, job, python, shown

pytestmark = pytest.mark.asyncio(loop_scope="module")

STORY = "Write a long story about a river and its people."
FRANCE = "What is the capital of France?"
# About 800 tokens, unlike any other prompt's.
RULES = " ".join(f"Rule {number}: never mention the number {number * 7}." for number in range(60))
# What the library makes of tokens in one go, the end token left out.
DECODE = """
import json, sys, numpy, onnxruntime_genai as og
tokens = [token for token in json.load(sys.stdin) if token != 2]
sys.stdout.write(og.Tokenizer(og.Config(sys.argv[1])).decode(numpy.array(tokens, dtype=numpy.int32)))
"""
# A text through the tokenizer and back, a token at a time, as a list of pieces.
ECHO = """
import json, sys
from pathlib import Path
from agent.engines.worker.model import Model
model = Model(Path(sys.argv[1]), None)
words = model.words()
json.dump([words.add(int(token)) for token in model._tokenizer.encode(json.load(sys.stdin))], sys.stdout)
"""


async def test_it_says_what_it_is(engine: LocalEngine) -> None:
    health = engine.health

    assert (health.state, health.provider, health.context, health.detail) == ("ready", "cpu", 8192, None)
    assert engine.resident_bytes > 100 << 20


async def test_greedy_words_are_those_of_the_bare_loop(engine: LocalEngine, model_folder: Path) -> None:
    texts = (STORY, FRANCE, RULES)
    asked = {"prompts": [[{"role": "user", "content": text}] for text in texts], "max_tokens": 40}
    bare = json.loads(await python("-m", "agent.engines.worker.bare", str(model_folder), given=json.dumps(asked)))
    ours = [await answer(engine, job(text, max_tokens=40)) for text in texts]

    assert [said.started.prompt_tokens for said in ours] == [result["prompt_tokens"] for result in bare]
    assert [said.text for said in ours] == [
        await python("-c", DECODE, str(model_folder), given=json.dumps(result["tokens"])) for result in bare
    ]


async def test_usage_counts_every_token_and_the_reason_is_told(engine: LocalEngine) -> None:
    ended = await answer(engine, job(FRANCE))
    cut = await answer(engine, job(STORY, max_tokens=5))

    assert ended.text == "The capital of France is Paris."
    assert ended.done
    assert ended.done.finish_reason == "stop"
    assert ended.done.usage.completion_tokens == 8
    assert ended.done.usage.prompt_tokens == ended.started.prompt_tokens == 37
    assert cut.done
    assert cut.done.finish_reason == "length"
    assert cut.done.usage.completion_tokens == 5


async def test_several_jobs_at_once_say_what_each_says_alone(engine: LocalEngine) -> None:
    texts = [f"Tell me about {what}." for what in ("rivers", "mountains", "trains", "bread", "music", "glass")]
    alone = [(await answer(engine, job(text))).text for text in texts]
    together = await asyncio.gather(*(answer(engine, job(text)) for text in texts))

    assert [said.text for said in together] == alone
    assert len(set(alone)) == len(texts)


async def test_what_jobs_cost_together_is_the_time_that_they_took(engine: LocalEngine) -> None:
    begun = time.monotonic()
    together = await asyncio.gather(*(answer(engine, job(f"{at}. {STORY}", max_tokens=20)) for at in range(3)))
    taken_s = time.monotonic() - begun
    costs = [said.done.cost for said in together if said.done and said.done.cost]

    assert min(min(cost.prefill_s, cost.decode_s) for cost in costs) > 0
    assert 0.7 * taken_s < sum(cost.prefill_s + cost.decode_s for cost in costs) < taken_s


async def test_a_short_job_does_not_wait_for_a_long_one(engine: LocalEngine) -> None:
    begun = asyncio.Event()
    long = asyncio.create_task(answer(engine, job(STORY, max_tokens=300), begun))
    await begun.wait()
    short = await answer(engine, job(FRANCE))

    assert short.text == "The capital of France is Paris."
    assert not long.done()
    assert (await long).text


async def test_a_prompt_that_is_being_computed_gives_way_to_a_cancel(engine: LocalEngine) -> None:
    async with aclosing(engine.run(job("Canceled. " + RULES * 6))) as events:
        assert isinstance(await anext(events), Started)
    # The prompt would take ten seconds.
    async with asyncio.timeout(5):
        assert (await answer(engine, job(FRANCE))).text


async def test_canceled_jobs_free_their_slots(engine: LocalEngine) -> None:
    for _ in range(2 * engine.slots):
        async with aclosing(engine.run(job(STORY, max_tokens=4000))) as events:
            async for event in events:
                if isinstance(event, Text):
                    break
    async with asyncio.timeout(5):
        assert (await answer(engine, job(FRANCE))).text


async def test_a_job_canceled_in_the_queue_leaves_the_others_be(engine: LocalEngine) -> None:
    running = [asyncio.create_task(answer(engine, job(f"{STORY} {n}", max_tokens=30))) for n in range(engine.slots)]
    waiting = asyncio.create_task(answer(engine, job(FRANCE)))
    await asyncio.sleep(0)
    waiting.cancel()
    done = await asyncio.gather(*running)

    assert all(said.done for said in done)
    assert waiting.cancelled()


async def test_a_prefix_is_computed_once_and_changes_nothing(engine: LocalEngine) -> None:
    first = await answer(engine, job("Reuse. " + RULES + " Say yes."))
    again = await answer(engine, job("Reuse. " + RULES + " Say no."))
    back = await answer(engine, job("Reuse. " + RULES + " Say yes."))

    assert again.cached > 700
    assert back.cached > 700
    assert back.text == first.text
    assert back.done
    assert back.done.usage.cached_prompt_tokens == back.cached


async def test_a_conversation_goes_on_from_its_last_turn(engine: LocalEngine) -> None:
    first = await answer(engine, job("Conversation. " + RULES + " " + FRANCE, max_tokens=16))
    turns = ("Conversation. " + RULES + " " + FRANCE, first.text, "And of Spain?")
    second = await answer(engine, job(*turns, max_tokens=16))

    assert second.cached > first.started.prompt_tokens - 8


DRAWN: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95, "seed": 42, "max_tokens": 24}


async def test_a_seed_repeats_whatever_else_runs_and_whatever_is_cached(engine: LocalEngine) -> None:
    first = await answer(engine, job(RULES + STORY, **DRAWN))
    begun = asyncio.Event()
    other = asyncio.create_task(answer(engine, job("Other. " + STORY, max_tokens=100, temperature=1.0), begun))
    await begun.wait()
    second = await answer(engine, job(RULES + STORY, **DRAWN))
    await other

    assert second.cached > first.cached
    assert second.text == first.text


async def test_seeds_differ_and_no_seed_differs_every_time(engine: LocalEngine) -> None:
    drawn: dict[str, Any] = {"temperature": 1.0, "max_tokens": 24}
    texts = {(await answer(engine, job(STORY, **drawn, seed=seed))).text for seed in (1, 2, None, None)}

    assert len(texts) == 4


async def test_a_greedy_job_is_greedy_after_one_that_was_drawn(engine: LocalEngine) -> None:
    greedy = await answer(engine, job(STORY + " Now."))
    await answer(engine, job(STORY + " Now.", temperature=2.0))

    assert (await answer(engine, job(STORY + " Now."))).text == greedy.text


async def test_the_answer_ends_before_a_stop_string(engine: LocalEngine) -> None:
    said = await answer(engine, job(FRANCE, stop=(" is Pa", "Madrid")))

    assert said.text == "The capital of France"
    assert said.done
    assert said.done.finish_reason == "stop"


async def test_what_only_looked_like_a_stop_string_is_in_the_answer(engine: LocalEngine) -> None:
    said = await answer(engine, job(FRANCE, stop=("Paris.!",)))

    assert said.text == "The capital of France is Paris."


async def test_characters_of_several_tokens_come_whole(model_folder: Path) -> None:
    text = "Emoji 😀👩\u200d👩\u200d👧🇩🇪, 日本語テキスト 𠮷, e\u0301a\u0308 ก็, \ttabs\n\n  and  spaces. "
    pieces = json.loads(await python("-c", ECHO, str(model_folder), given=json.dumps(text)))

    assert "".join(pieces) == text
    assert "" in pieces  # some characters do take several tokens
    assert "\ufffd" not in "".join(pieces)


def shaped(schema: dict[str, Any]) -> ResponseFormat:
    return ResponseFormat.model_validate({"type": "json_schema", "json_schema": {"schema": schema}})


@pytest.mark.parametrize("drawn", [{}, {"temperature": 1.0, "seed": 5}])
async def test_an_answer_matches_the_schema(engine: LocalEngine, drawn: dict[str, Any]) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "capital": {"type": "boolean"}},
        "required": ["city", "capital"],
        "additionalProperties": False,
    }
    asked = job(FRANCE, response_format=shaped(schema), max_tokens=64, **drawn)
    first = await answer(engine, asked)

    assert set(json.loads(first.text)) == {"city", "capital"}
    assert (await answer(engine, asked)).text == first.text


async def refused(engine: LocalEngine, asked: object) -> JobError:
    with pytest.raises(JobError) as error:
        await answer(engine, asked)  # type: ignore[arg-type]
    return error.value


async def test_what_exceeds_the_window_is_refused_in_numbers(engine: LocalEngine) -> None:
    error = await refused(engine, job(FRANCE, max_tokens=9000))

    assert error.code == Code.TOO_LARGE
    assert error.message == (
        "the prompt has 37 tokens and the answer may have 9,000: together 9,037, and the model's window here is 8,192"
    )


async def test_a_megabyte_of_prompt_is_refused_soon(engine: LocalEngine) -> None:
    async with asyncio.timeout(3):
        error = await refused(engine, job("漢字" * 170_000))

    assert error.code == Code.TOO_LARGE
    assert "and the model's window here is 8,192" in error.message


async def test_a_schema_that_makes_no_sense_is_refused(engine: LocalEngine) -> None:
    error = await refused(engine, job(FRANCE, response_format=shaped({"type": "nonsense"})))

    assert error.code == Code.BAD_REQUEST
    assert "JSON schema" in error.message


async def test_a_nul_character_is_refused_rather_than_what_follows_it_lost(engine: LocalEngine) -> None:
    assert (await refused(engine, job("one\0two"))).code == Code.BAD_REQUEST
    assert (await answer(engine, job(r"What is \u0000 in JSON?", max_tokens=1))).done


async def test_a_picture_is_refused(engine: LocalEngine) -> None:
    error = await refused(engine, shown("What is it?", PHOTOGRAPH))

    assert error.code == Code.UNSUPPORTED
    assert error.message == "the model on this box takes text only: send the job without pictures"


async def test_an_idle_worker_rests(engine: LocalEngine) -> None:
    await answer(engine, job(FRANCE))
    assert engine._child
    worker = psutil.Process(engine._child.pid)
    await asyncio.sleep(0.5)  # onnxruntime's threads spin for a moment after a call
    before = sum(worker.cpu_times()[:2])
    await asyncio.sleep(1)

    assert sum(worker.cpu_times()[:2]) - before <= 0.02


async def test_many_jobs_with_random_ends_leave_it_whole(engine: LocalEngine) -> None:
    chance = random.Random(3)

    async def one(number: int) -> None:
        events = engine.run(job(f"{number} {STORY}", max_tokens=chance.randint(1, 12)))
        async with aclosing(events):
            for _ in range(chance.randint(0, 6)):
                if await anext(events, None) is None:
                    return

    await asyncio.gather(*(one(number) for number in range(24)))
    assert (await answer(engine, job(FRANCE))).text == "The capital of France is Paris."
    assert engine._jobs == {}
