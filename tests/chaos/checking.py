"""What the agent promises, as rules over what was seen of a run."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import groupby, pairwise
from typing import NamedTuple

from agent.contract.jobs import Key
from tests.chaos.history import BY_BROKER, History, Told

# What a process that did the same work twice may have more: the allocator's and SQLite's caches.
_GROWTH = 1.10
_BROKEN = {"service.failed", "request.broke", "job.broke"}
_STORED = {"job.finished", "job.refused"}


class Violation(NamedTuple):
    """A promise that was not kept."""

    rule: str
    what: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}: {self.evidence}"


def check(history: History) -> list[Violation]:
    """Return every violation of every rule."""
    rules: tuple[Callable[[History], Iterator[Violation]], ...] = (
        unanswered,
        stray,
        changed,
        run_again,
        out_of_order,
        incomplete,
        spliced,
        leaked,
        broken,
    )
    return [violation for rule in rules for violation in rule(history)]


def unanswered(history: History) -> Iterator[Violation]:
    """See that every request has a final at its client, and that only a killed broker made a repeat needed for it."""
    heard = {told.key for told in history.heard if told.kind == "final"}
    for key in sorted(history.asked - heard):
        yield Violation("unanswered", _name(key), f"its client heard no final: {history.lost(key)}")
    for key, lost in sorted(history.repeated.items()):
        if lost not in BY_BROKER or not history.broker_kills:
            yield Violation("unanswered", _name(key), f"{lost}, and the broker was killed {history.broker_kills} times")


def stray(history: History) -> Iterator[Violation]:
    """See that every final answers a request: one under an id that nobody used is of a request that lost its own."""
    for key in sorted({told.key for told in history.finals()} - history.asked):
        yield Violation("stray", _name(key), "nobody used this id")


def changed(history: History) -> Iterator[Violation]:
    """See that all finals of a job are the same."""
    distinct: defaultdict[Key, set[str]] = defaultdict(set)
    for told in history.finals():
        distinct[told.key].add(json.dumps(told.body, sort_keys=True))
    for key, finals in sorted(distinct.items()):
        if len(finals) > 1:
            yield Violation("changed", _name(key), " <> ".join(sorted(finals)))


def run_again(history: History) -> Iterator[Violation]:
    """See that nothing starts once its final is stored, and that the final is of the last attempt."""
    seen: dict[Key, Told] = {}
    for told in sorted(history.finals(), key=lambda each: each.at):
        seen.setdefault(told.key, told)
    stored: set[Key] = set()
    for event in history.log:
        key = Key(event.get("client", ""), event.get("id", ""))
        if event["event"] in _STORED:
            stored.add(key)
        elif event["event"] == "job.started":
            attempt = event["attempt"]
            if key in stored:
                yield Violation("run again", _name(key), f"attempt {attempt} was started after its final was stored")
            elif key in seen and _seconds(event["timestamp"]) > seen[key].at:
                yield Violation("run again", _name(key), f"attempt {attempt} was started after its final was published")
            elif key in seen and attempt > seen[key].body["attempt"]:
                yield Violation(
                    "run again", _name(key), f"attempt {attempt} ran, the final is of {seen[key].body['attempt']}"
                )


def out_of_order(history: History) -> Iterator[Violation]:
    """See that attempts only go up, that nothing comes after a final, and that no chunk comes twice or too late."""
    for key, events in _by_job(history.in_order):
        for before, after in pairwise(events):
            if after.body["attempt"] < before.body["attempt"] or before.kind == "final" != after.kind:
                yield Violation("out of order", _name(key), f"{_brief(after)} after {_brief(before)}")
    for heard in (history.in_order, history.heard):
        for key, events in _by_job(heard):
            for before, after in pairwise(told for told in events if told.kind == "chunk"):
                if _place(after) <= _place(before):
                    yield Violation("out of order", _name(key), f"{_brief(after)} after {_brief(before)}")


def incomplete(history: History) -> Iterator[Violation]:
    """See that the chunks that the agent sent have no gap, as long as its connection held."""
    started = {
        (event["client"], event["id"], event["attempt"]): _seconds(event["timestamp"])
        for event in history.log
        if event["event"] == "job.started"
    }
    for key, events in _by_job(history.in_order):
        for attempt, told in groupby((each for each in events if each.kind == "chunk"), lambda each: _place(each)[0]):
            chunks = list(told)
            held = started.get((*key, attempt), 0.0) > history.connected[chunks[0].connection]
            if held and _place(chunks[0])[1] != 0:
                yield Violation("incomplete", _name(key), f"the first is {_brief(chunks[0])}")
            for before, after in pairwise(chunks):
                if before.connection == after.connection and _place(after)[1] > _place(before)[1] + 1:
                    yield Violation("incomplete", _name(key), f"{_brief(after)} after {_brief(before)}")


def spliced(history: History) -> Iterator[Violation]:
    """See that the chunks of a final's attempt are its text, or where the link was lost meanwhile, its beginning.

    Every other attempt said the same, too, as far as it came: the model is greedy.
    """
    for key, events in _by_job([*history.in_order, *history.heard]):
        said: defaultdict[int, dict[int, str]] = defaultdict(dict)
        for told in events:
            if told.kind == "chunk":
                attempt, seq = _place(told)
                text = said[attempt].setdefault(seq, told.body["text"])
                if text != told.body["text"]:
                    yield Violation("spliced", _name(key), f"two texts for attempt {attempt}, seq {seq}")
        final = next((told for told in events if told.kind == "final"), None)
        if final is None:
            continue
        attempt, count, text = final.body["attempt"], final.body["seq"], final.body["text"]
        if max(said[attempt], default=-1) >= count:
            yield Violation("spliced", _name(key), f"a chunk {max(said[attempt])}, and the final counts {count}")
        links = {told.connection for told in events if told.kind == "chunk" and _place(told)[0] == attempt}
        if links - {0} == {final.connection} and len(said[attempt]) == count and _joined(said[attempt]) != text:
            yield Violation("spliced", _name(key), f"{_joined(said[attempt])!r} was streamed, and {text!r} is final")
        for each, words in said.items():
            if (each == attempt or final.body["state"] == "SUCCEEDED") and not text.startswith(_joined(words)):
                yield Violation("spliced", _name(key), f"attempt {each} said {_joined(words)!r}, the final {text!r}")


def leaked(history: History) -> Iterator[Violation]:
    """See that memory and open files are back where they were."""
    warm, left_alone, at_end = history.quiet
    if left_alone.pid != at_end.pid:
        yield Violation("leaked", "the agent", "its process was left alone, and is another one now")
    for before, after in ((warm, at_end), (left_alone, at_end)):
        if more := after.files - before.files:
            yield Violation("leaked", "open files", f"at the end there are more of {dict(more)}")
        if after.threads > before.threads:
            yield Violation("leaked", "threads", f"{before}; at the end {after}")
        if after.resident > before.resident * _GROWTH:
            yield Violation("leaked", "memory", f"{before}; at the end {after}")


def broken(history: History) -> Iterator[Violation]:
    """See that no defect shows in the log, and that the agent never ended by itself."""
    for death in history.deaths:
        yield Violation("broken", "the agent", death)
    for event in history.log:
        if event["event"] in _BROKEN or "exception" in event:
            yield Violation("broken", event["event"], json.dumps(event))
    for line in history.unread:
        yield Violation("broken", "the log has what is no event", line)


def _by_job(events: Iterable[Told]) -> Iterator[tuple[Key, list[Told]]]:
    for key, told in groupby(sorted(events, key=lambda each: each.key), key=lambda each: each.key):
        yield key, list(told)


def _place(told: Told) -> tuple[int, int]:
    return told.body["attempt"], told.body["seq"]


def _joined(words: dict[int, str]) -> str:
    """Join the chunks from the first up to where one is missing."""
    text = ""
    for number in range(len(words)):
        if number not in words:
            break
        text += words[number]
    return text


def _brief(told: Told) -> str:
    shown = {name: told.body[name] for name in ("state", "attempt", "seq") if name in told.body}
    return f"{told.kind} {json.dumps(shown)} on connection {told.connection}"


def _name(key: Key) -> str:
    return f"{key.client}/{key.id}"


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
