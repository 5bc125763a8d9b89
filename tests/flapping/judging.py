"""What holds while the cloud flaps, as rules over what was seen from outside."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from agent.contract.jobs import Key
from tests.chaos.checking import Violation
from tests.chaos.history import Told
from tests.flapping.history import Ask, History
from tests.flapping.story import untrue

# What a cancel may take, and a deadline is one.
_LATE_S = 0.3
# A refusal or a timeout that comes so long after the deadline was forgotten meanwhile.
_FORGOTTEN_S = 2.0
_WORD = re.compile(r"cloud(\d+)")
_MOST_WORDS = 256
_REASONS = {
    "local": {"preferred", "required", "no_cloud", "fallback"},
    "cloud": {"preferred", "required", "deadline", "queue", "memory", "heat", "wait", "model", "fallback"},
}
_BROKEN = {"service.failed", "request.broke", "job.broke"}


def check(history: History) -> list[Violation]:
    """Return every violation of every rule."""
    rules: tuple[Callable[[History], Iterator[Violation]], ...] = (
        lost,
        spliced,
        cut_short,
        misplaced,
        late,
        leaked,
        egress,
        broken,
        untrue,
    )
    return [violation for rule in rules for violation in rule(history)]


def lost(history: History) -> Iterator[Violation]:
    """See that every job has one final, however often it came, and that nothing else has one."""
    finals = history.finals()
    for key in sorted(history.asked.keys() - finals.keys()):
        yield Violation("lost", key.id, "it has no final")
    for key in sorted(finals.keys() - history.asked.keys()):
        yield Violation("lost", key.id, "nobody asked for it: another job has lost its final")
    for key, told in finals.items():
        if len(different := {each.payload for each in told}) > 1:
            yield Violation("lost", key.id, f"it has {len(different)} finals: {sorted(different)}")


def spliced(history: History) -> Iterator[Violation]:
    """See that no attempt and no final has words of two models, or of two answers of one.

    The stand-in counts its words from the first on, and no model of ours speaks like it.
    """
    said = _said(history)
    for (key, attempt), chunks in said.items():
        yield from _two_voices(key, f"attempt {attempt}", "".join(text for _, text in sorted(chunks.items())))
        yield from _out_of_turn(key, f"attempt {attempt}", _joined(chunks))
    for told in history.heard:
        if told.kind == "chunk" and said[told.key, told.body["attempt"]][told.body["seq"]] != told.body["text"]:
            yield Violation("spliced", told.key.id, f"attempt {told.body['attempt']} has two chunks {told.body['seq']}")
    for ask, final in _answered(history):
        key, text = ask.key, final["text"]
        chunks = said.get((key, final["attempt"]), {})
        streamed = _joined(chunks)
        yield from _two_voices(key, "its final", text)
        yield from _out_of_turn(key, "its final", text)
        if not text.startswith(streamed) or (len(chunks) == final["seq"] > 0 and streamed != text):
            yield Violation("spliced", key.id, f"{streamed!r} was streamed, and {text!r} is final")


def cut_short(history: History) -> Iterator[Violation]:
    """See that what succeeded in the cloud has all its words: a stream that breaks off is no answer."""
    for ask, final in _answered(history):
        words = final["text"].split()
        expected = min(ask.fields["max_tokens"], _MOST_WORDS)
        if final["state"] == "SUCCEEDED" and final["placement"]["where"] == "cloud" and len(words) != expected:
            yield Violation("cut short", ask.key.id, f"{len(words)} words of {expected}")


def misplaced(history: History) -> Iterator[Violation]:
    """See that a job ran where it may, that its words are of that place, and that there is a word for why."""
    for ask, final in _answered(history):
        where, reason = final["placement"]["where"], final["placement"]["reason"]
        if voices := _voices(final["text"]) - {where}:
            yield Violation("misplaced", ask.key.id, f"it ran {where}, and has words of the {voices}")
        if (ask.stays and where == "cloud") or (ask.fields.get("placement") == "cloud_only" and where == "local"):
            yield Violation("misplaced", ask.key.id, f"it ran {where}, and asked for {ask.fields}")
        if where in _REASONS and reason not in _REASONS[where]:
            yield Violation("misplaced", ask.key.id, f"it ran {where} for the reason {reason!r}")


def late(history: History) -> Iterator[Violation]:
    """See that every final came by its deadline, or says why not, and that no job was forgotten.

    A box that is down says nothing, and what it says when it is back is late without its fault.
    """
    for ask, told in _first_finals(history):
        final, at = told.body, told.at
        due = ask.at + ask.fields.get("deadline_s", float("inf"))
        said_why = final["state"] in {"TIMED_OUT", "REJECTED"} and final["error"] is not None
        away = any(down.since <= at and ask.at <= down.until for down in history.down)
        if at > due + (_FORGOTTEN_S if said_why else _LATE_S) and not away:
            yield Violation("late", ask.key.id, f"{final['state']} came {at - due:.3f} s after its deadline")


def leaked(history: History) -> Iterator[Violation]:
    """See that nothing of what stays here was ever received there."""
    for ask in history.asked.values():
        if ask.stays and any(history.requests(ask)):
            yield Violation("leaked", ask.key.id, f"the cloud has it, and it was asked for with {ask.fields}")


def egress(history: History) -> Iterator[Violation]:
    """See that each final says whether the job left the box."""
    for ask, final in _answered(history):
        left = any(history.requests(ask))
        if final["placement"]["egress"] is not left:
            yield Violation(
                "egress", ask.key.id, f"it {'left' if left else 'never left'}, and the final has {final['placement']}"
            )


def broken(history: History) -> Iterator[Violation]:
    """See that no defect shows in the log, nor in an answer."""
    for event in history.log:
        if event["event"] in _BROKEN or "exception" in event:
            yield Violation("broken", event["event"], json.dumps(event))
    for line in history.unread:
        yield Violation("broken", "the log has what is no event", line)
    for ask, final in _answered(history):
        error = final["error"]
        if (error is None) != (final["state"] == "SUCCEEDED") or (
            error and error["code"] in {"internal", "bad_request"}
        ):
            yield Violation("broken", ask.key.id, f"{final['state']} with {error}")


def _answered(history: History) -> Iterator[tuple[Ask, dict[str, Any]]]:
    """Yield each job with what its final says."""
    return ((ask, told.body) for ask, told in _first_finals(history))


def _first_finals(history: History) -> Iterator[tuple[Ask, Told]]:
    """Yield each job with its final as it was first heard."""
    for key, told in history.finals().items():
        if key in history.asked:
            yield history.asked[key], told[0]


def _said(history: History) -> dict[tuple[Key, int], dict[int, str]]:
    """Return the first text of each chunk, by attempt."""
    said: defaultdict[tuple[Key, int], dict[int, str]] = defaultdict(dict)
    for told in history.heard:
        if told.kind == "chunk":
            said[told.key, told.body["attempt"]].setdefault(told.body["seq"], told.body["text"])
    return said


def _voices(text: str) -> set[str]:
    return {"cloud" if _WORD.fullmatch(word) else "local" for word in text.split()}


def _two_voices(key: Key, where: str, text: str) -> Iterator[Violation]:
    if len(_voices(text)) > 1:
        yield Violation("spliced", key.id, f"{where} has words of both: {text!r}")


def _out_of_turn(key: Key, where: str, text: str) -> Iterator[Violation]:
    numbers = [int(number) for number in _WORD.findall(text)]
    if numbers != list(range(len(numbers))):
        yield Violation("spliced", key.id, f"{where} has words of two answers, or lacks some: {text!r}")


def _joined(chunks: dict[int, str]) -> str:
    """Join an attempt's chunks up to the first that was not heard, which may be lost."""
    known = next(number for number in range(len(chunks) + 1) if number not in chunks)
    return "".join(chunks[number] for number in range(known))
