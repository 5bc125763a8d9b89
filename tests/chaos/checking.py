"""What the agent promises, as rules over what was seen of a run."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import groupby, pairwise
from typing import NamedTuple

from agent.contract.jobs import Key
from tests.chaos.history import History, Told

# What a process that did the same work twice may have more: the allocator's and SQLite's caches. 2,100 jobs and 220
# faults left 2.5 % more than the first eight jobs.
_GROWTH = 1.05
# One for each model.
_WORKERS = 2
# From the broker's PUBACK to its file: it saves after every change, in milliseconds, on a machine that is not busy.
_UNSAVED_S = 2.0
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
        never_run,
        out_of_order,
        incomplete,
        spliced,
        recited,
        leaked,
        broken,
    )
    return [violation for rule in rules for violation in rule(history)]


def unanswered(history: History) -> Iterator[Violation]:
    """See that every request has a final at its client, and that only a killed broker made a repeat needed for it."""
    heard = {told.key for told in history.heard if told.kind == "final"}
    for key in sorted(history.asked.keys() - heard):
        yield Violation("unanswered", _name(key), f"its client heard no final: {history.lost(key).by}")
    for key, lost in sorted(history.repeated.items()):
        if not lost.when or not all(_unsaved(history, when) for when in lost.when):
            kills = [outage.began for outage in history.outages if outage.how == "kill"]
            yield Violation("unanswered", _name(key), f"{lost.by}, at {lost.when}; the broker was killed at {kills}")


def stray(history: History) -> Iterator[Violation]:
    """See that every final answers a request: one under an id that nobody used is of a request that lost its own."""
    for key in sorted({told.key for told in history.finals()} - history.asked.keys()):
        yield Violation("stray", _name(key), "nobody used this id")


def changed(history: History) -> Iterator[Violation]:
    """See that all finals of a job are the same."""
    distinct: defaultdict[Key, set[bytes]] = defaultdict(set)
    for told in history.finals():
        distinct[told.key].add(told.payload)
    for key, finals in sorted(distinct.items()):
        if len(finals) > 1:
            yield Violation("changed", _name(key), " <> ".join(sorted(final.decode() for final in finals)))


def run_again(history: History) -> Iterator[Violation]:
    """See that nothing starts once its final is stored, that no attempt starts twice, and the last one has the final.

    A worker's death gives a job its next attempt, whose number is on disk only before its first word: an agent that is
    killed between its start and that gives the number again.
    """
    seen: dict[Key, Told] = {}
    for told in sorted(history.finals(), key=lambda each: each.at):
        seen.setdefault(told.key, told)
    spoke = _spoke(history)
    stored: set[Key] = set()
    requeued: set[tuple[Key, int]] = set()
    started: set[tuple[Key, int]] = set()
    for event in history.log:
        key = Key(event.get("client", ""), event.get("id", ""))
        if event["event"] in _STORED:
            stored.add(key)
        elif event["event"] == "job.requeued":
            requeued.add((key, event["attempt"]))
        elif event["event"] == "job.started":
            attempt, at = event["attempt"], _seconds(event["timestamp"])
            run = key, attempt
            if key in stored:
                yield Violation("run again", _name(key), f"attempt {attempt} was started after its final was stored")
            elif key in seen and at > seen[key].at:
                yield Violation("run again", _name(key), f"attempt {attempt} was started after its final was seen")
            elif key in seen and attempt > seen[key].body["attempt"]:
                yield Violation(
                    "run again", _name(key), f"attempt {attempt} ran, the final is of {seen[key].body['attempt']}"
                )
            elif run in started and (run not in requeued or at > spoke.get(run, math.inf)):
                yield Violation("run again", _name(key), f"attempt {attempt} was started twice")
            started.add(run)


def never_run(history: History) -> Iterator[Violation]:
    """See that what succeeded was run, by the attempt that it says."""
    started = _started(history)
    succeeded = {(told.key, told.body["attempt"]) for told in history.finals() if told.body["state"] == "SUCCEEDED"}
    for key, attempt in sorted(succeeded - started.keys()):
        yield Violation("never run", _name(key), f"it succeeded, and its attempt {attempt} was not started")


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
    """See that the chunks that the agent sent have no gap, and are as many as it counts, as long as its link held."""
    started = _started(history)
    for key, events in _by_job(history.in_order):
        for attempt, told in groupby((each for each in events if each.kind == "chunk"), lambda each: _place(each)[0]):
            chunks = list(told)
            held = started.get((key, attempt), 0.0) > history.connected[chunks[0].connection]
            if held and _place(chunks[0])[1] != 0:
                yield Violation("incomplete", _name(key), f"the first is {_brief(chunks[0])}")
            for before, after in pairwise(chunks):
                if before.connection == after.connection and _place(after)[1] > _place(before)[1] + 1:
                    yield Violation("incomplete", _name(key), f"{_brief(after)} after {_brief(before)}")
        final = next((each for each in events if each.kind == "final"), None)
        if final is None:
            continue
        attempt, count = _place(final)
        # It counts what it could send: words for which there was no connection are in no chunk.
        if started.get((key, attempt), 0.0) > history.connected[final.connection]:
            places = {_place(each) for each in events if each.kind == "chunk"}
            if missing := [seq for seq in range(count) if (attempt, seq) not in places]:
                yield Violation("incomplete", _name(key), f"chunks {missing} of {_brief(final)} were not sent")


def spliced(history: History) -> Iterator[Violation]:
    """See that the chunks of a final's attempt are its text, or where the link was lost meanwhile, its beginning.

    Every other attempt said the same, too, as far as it came, where the words were not drawn by chance.
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
            same = each == attempt or (final.body["state"] == "SUCCEEDED" and key not in history.sampled)
            if same and not text.startswith(_joined(words)):
                yield Violation("spliced", _name(key), f"attempt {each} said {_joined(words)!r}, the final {text!r}")


def recited(history: History) -> Iterator[Violation]:
    """See that what was written under fire is what the model writes when it is left alone."""
    texts = {told.key: told.body["text"] for told in history.finals() if told.body["state"] == "SUCCEEDED"}
    for key, again in sorted(history.recited.items()):
        if again in texts and texts[again] != texts[key]:
            yield Violation("recited", _name(key), f"{texts[key]!r}, and left alone {texts[again]!r}")


def leaked(history: History) -> Iterator[Violation]:
    """See that memory, open files and workers are back where they were."""
    warm, left_alone, at_end = history.quiet
    for each in history.quiet:
        if each.workers != _WORKERS:
            yield Violation("leaked", "workers", f"there are not {_WORKERS}: {each}")
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
    """See that no defect shows in the log, that the agent never ended by itself, and that its workers came back."""
    for death in history.deaths:
        yield Violation("broken", "the agent", death)
    for missed in history.missed:
        yield Violation("broken", "a fault", missed)
    for event in history.log:
        if event["event"] in _BROKEN or "exception" in event:
            yield Violation("broken", event["event"], json.dumps(event))
    for line in history.unread:
        yield Violation("broken", "the log has what is no event", line)


def _unsaved(history: History, when: float) -> bool:
    """Whether the broker may have lost what it took on then: it was killed right after, or was down."""
    for kill in (outage for outage in history.outages if outage.how == "kill"):
        since = kill.began - _UNSAVED_S
        for stop in (outage for outage in history.outages if outage.how == "stop"):
            if stop.began < since < stop.over:
                since = stop.began  # what came while it was stopped, it read afterwards
        if since <= when <= kill.over:
            return True
    return False


def _started(history: History) -> dict[tuple[Key, int], float]:
    """Return when each attempt was started."""
    return {
        (Key(event["client"], event["id"]), event["attempt"]): _seconds(event["timestamp"])
        for event in history.log
        if event["event"] == "job.started"
    }


def _spoke(history: History) -> dict[tuple[Key, int], float]:
    """Return when each attempt first said that it ran, or what."""
    spoke: dict[tuple[Key, int], float] = {}
    for told in history.sent:
        if told.kind == "chunk" or told.body["state"] in {"started", "restarted"}:
            run = told.key, told.body["attempt"]
            spoke[run] = min(told.at, spoke.get(run, math.inf))
    return spoke


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
