"""The rows about text: what is measured, how, and the bound it is held against."""

import asyncio
import time
from statistics import median

from agent.bench import ROWS
from agent.bench.rig import Box, Messages, Rig, children, cpu_seconds
from agent.bench.row import Heard, Measure, Row, heard
from agent.client import Client
from agent.metrics import resident_bytes

_REPEATS = 5
_STARTS = 5
_SYLLABLES = ("the", "box", "reads", "a", "sensor", "and", "writes", "its", "value", "to", "the", "log", "each", "hour")


async def _ask(client: Client, messages: Messages, max_tokens: int, **fields: object) -> Heard:
    return await heard(client.ask({"messages": messages, "max_tokens": max_tokens, "temperature": 0, **fields}))


def _talk(number: int, words: int, question: str = "Write a long story about a lighthouse.") -> Messages:
    """Return a conversation of some ``words`` that differs from every other ``number``'s in its first words.

    No cache can then help a repeat, in either of the two that are compared.
    """
    filler = " ".join(_SYLLABLES[(number + position) % len(_SYLLABLES)] for position in range(words))
    return [{"role": "system", "content": f"Station {number}: {filler}."}, {"role": "user", "content": question}]


async def decode(rig: Rig) -> list[Row]:
    """Run one job over MQTT against the bare loop: its decode rate, and what is added to the first chunk."""
    ours, bare, added = [], [], []
    for number in range(_STARTS):
        # Both start anew each time: one process can run 8 % faster than the next. The first jobs only warm up; the
        # box's fill its slots, since a slot's first job takes 12 ms more, for the pages of its KV cache.
        talks = [_talk(10 * number + each, 120) for each in range(4)]
        plain = (await rig.bare(talks, 200))[1:]
        async with rig.box() as box, box.client("bench") as client:
            for slot in range(rig.settings.engine.slots):
                await _ask(client, _talk(1000 + slot, 120), 200, stop=" ")
            heard = [await _ask(client, talk, 200) for talk in talks[1:]]
        for theirs, mine in zip(plain, heard, strict=True):
            usage = mine.final["usage"]
            tokens = usage["completion_tokens"]
            did = (usage["prompt_tokens"], tokens, usage["cached_prompt_tokens"])
            if did != (theirs["prompt_tokens"], len(theirs["tokens"]), 0):
                raise RuntimeError(f"the box and the bare loop did not do the same work: {did}")
            ours.append((tokens - 1) / (mine.total_s - mine.first_s))
            bare.append(theirs["decode_tokens_per_s"])
            added.append(mine.first_s - theirs["first_token_s"])
    return [
        Row(
            "decode tokens/s, one job over MQTT, against the bare loop",
            median(ours) / median(bare),
            "x",
            0.95,
            "at least",
            f"{median(ours):.1f} against {median(bare):.1f} tokens/s, {len(ours)} jobs of 200 tokens, {_STARTS} starts",
        ),
        Row(
            "request published → first chunk received, over the bare loop's prefill and first token",
            median(added) * 1000,
            "ms",
            15,
            "at most",
            f"{len(added)} prompts of {plain[0]['prompt_tokens']} tokens, nothing cached",
        ),
    ]


async def short_job(rig: Rig) -> list[Row]:
    """Send a short job while a long one decodes: its first chunk, against when it is alone."""
    alone, beside, ends = [], [], []
    async with rig.box() as box, box.client("long") as one, box.client("short") as other:
        await _ask(one, _talk(99, 20), 8)
        for number in range(_REPEATS):
            alone.append((await _ask(other, _talk(10 + number, 20), 20)).first_s)
            begun, started = time.perf_counter(), asyncio.Event()
            long = asyncio.create_task(_long(one, _talk(30 + number, 20), started))
            await started.wait()
            heard = await _ask(other, _talk(50 + number, 20), 20)
            ends.append((time.perf_counter() - begun) / (await long - begun))
            beside.append(heard.first_s)
    return [
        Row(
            "a 20-token job during a 400-token job: its first chunk, against alone",
            median(beside) / median(alone),
            "x",
            2.5,
            "at most",
            f"{median(beside) * 1000:.0f} against {median(alone) * 1000:.0f} ms, {_REPEATS} times",
        ),
        # It must not wait for the long one's end: a box that ran jobs one after another would show 1.
        Row(
            "the same 20-token job: its end, as a share of the 400-token job's time",
            max(ends),
            "x",
            0.9,
            "at most",
            f"the latest of {_REPEATS}",
        ),
    ]


async def _long(client: Client, messages: Messages, started: asyncio.Event) -> float:
    """Run a 400-token job; return when it ended."""
    async for event in client.ask({"messages": messages, "max_tokens": 400, "temperature": 0, "seed": 1}):
        if event.kind == "chunk":
            started.set()
    started.set()
    return time.perf_counter()


async def prefix(rig: Rig) -> list[Row]:
    """Run two jobs with one long system prompt: the second's first token against the first's."""
    first, second, cached, prompt = [], [], 0, 0
    async with rig.box() as box, box.client("bench") as client:
        await _ask(client, _talk(99, 20), 8)
        for number in range(_REPEATS):
            cold = await _ask(client, _talk(number, 800, "Which value is written?"), 8)
            warm = await _ask(client, _talk(number, 800, "How often is it written?"), 8)
            first.append(cold.first_s)
            second.append(warm.first_s)
            cached = warm.final["usage"]["cached_prompt_tokens"]
            prompt = warm.final["usage"]["prompt_tokens"]
    return [
        Row(
            "second job with the same 800-token system prompt: time to first token, against the first",
            median(second) / median(first),
            "x",
            0.15,
            "at most",
            f"{median(second) * 1000:.0f} against {median(first) * 1000:.0f} ms, {cached} of {prompt} tokens cached",
        ),
    ]


async def stall(rig: Rig) -> list[Row]:
    """Watch the event loop while the model loads and a long prompt is computed."""
    async with rig.box("agent.bench.child", "watched") as box, box.client("bench") as client:
        heard = await _ask(client, _talk(1, 1470), 8)
        longest = float((box.folder / "stall").read_text(encoding="ascii"))
    return [
        Row(
            "event loop's longest stall during model load and a 1,500-token prefill",
            longest * 1000,
            "ms",
            50,
            "at most",
            f"prompt of {heard.final['usage']['prompt_tokens']} tokens; the probe wakes every 5 ms",
        ),
    ]


async def footprint(rig: Rig) -> list[Row]:
    """Memory and idle CPU of a box whose model is loaded."""
    seconds = 20.0
    async with rig.box() as box, box.client("bench") as client:
        await _ask(client, _talk(1, 120), 50)
        before = cpu_seconds(box.agent.pid)
        await asyncio.sleep(seconds)
        idle = (cpu_seconds(box.agent.pid) - before) / seconds
        parent = resident_bytes(box.agent.pid) / 1e6
        workers = sum(resident_bytes(child) for child in children(box.agent.pid)) / 1e6
    return [
        Row("parent process: resident memory", parent, "MB", 80, "at most", f"its worker has {workers:.0f} MB"),
        Row("CPU when idle, parent and child", idle * 100, "% of a core", 1, "at most", f"over {seconds:.0f} s"),
    ]


async def throughput(rig: Rig) -> list[Row]:
    """Jobs a second through broker, contract, spool and back, with an engine that answers at once."""
    jobs, devices, at_once = 3000, 2, 100
    async with rig.box("agent.bench.child", "fake") as box:
        await _many(box, "warm", 200, at_once)
        begun = time.perf_counter()
        await asyncio.gather(*(_many(box, f"d{number}", jobs // devices, at_once) for number in range(devices)))
        rate = jobs / (time.perf_counter() - begun)
    return [
        Row(
            "contract, spool and bus with the engine faked: jobs/s accepted to final, QoS 1, durable",
            rate,
            "jobs/s",
            300,
            "at least",
            f"{jobs} jobs from {devices} devices, {at_once} at once each; the devices run on this machine too",
        ),
    ]


async def _many(box: Box, name: str, count: int, at_once: int) -> None:
    async with box.client(name) as client:
        left = iter(range(count))

        async def device() -> None:
            for _ in left:
                await _ask(client, [{"role": "user", "content": "Hi"}], 8)

        await asyncio.gather(*(device() for _ in range(at_once)))


MEASURES: dict[str, Measure] = dict(zip(ROWS, (decode, short_job, prefix, stall, footprint, throughput), strict=True))
