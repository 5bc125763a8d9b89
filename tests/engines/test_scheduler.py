from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import Mock
from weakref import WeakSet

import numpy as np
import pytest

from agent.contract.errors import Code, JobError
from agent.engines import wire
from agent.engines.worker.crops import Crops
from agent.engines.worker.facts import Facts
from agent.engines.worker.limits import RESERVE
from agent.engines.worker.sampling import Options
from agent.engines.worker.scheduler import Scheduler
from tests.engines.running import PHOTOGRAPH, PHOTOGRAPHS


class FakeCache:
    """Counts up: after token n comes n + 1. Computing a token takes a millisecond."""

    def __init__(self, model: "FakeModel", capacity: int, reach: int | None) -> None:
        self.model = model
        self.capacity = capacity
        self.reach = capacity if reach is None else reach  # of its rotary factors
        self.length = 0
        self.last = 0

    def rewind(self, length: int) -> None:
        self.length = length

    def append(self, tokens: Sequence[int]) -> None:
        if self.model.fault:
            fault, self.model.fault = self.model.fault, None
            raise fault
        self.length += len(tokens)
        self.last = tokens[-1]
        self.model.now += len(tokens) / 1000
        assert self.length <= min(self.capacity, self.reach)

    def look(self, tokens: Sequence[int], pictures: Sequence[Crops]) -> None:
        self.model.looks.append((len(tokens), [picture.tokens for picture in pictures]))
        self.append(tokens)

    def generate(self) -> int:
        assert self.length <= self.reach  # the last of them is computed now
        self.length += 1
        assert self.length <= self.capacity
        self.last += 1
        self.model.now += 0.001
        return self.last

    def logits(self) -> Any:
        return np.arange(100, dtype=np.float32)


class FakeWords:
    def add(self, token: int) -> str:
        return f" {token}"


class FakeModel:
    """Its prompts are their first token and their length, as JSON-free bytes: ``b"1000 50"``; pictures come first."""

    token_bytes = 1 << 20

    def __init__(self, *, vision: bool, switch: int | None, whole_prompts: bool) -> None:
        self.facts = Facts(context=4096, end=frozenset([2]), switch=switch, vision=vision, kv_bytes=1 << 20)
        self.whole_prompts = whole_prompts
        self.looks: list[tuple[int, list[int]]] = []
        self.fault: Exception | None = None
        self.now = 0.0
        self.caches: list[int] = []
        self.longs: list[bool] = []
        self.owned: list[dict[str, object]] = []

    def prompt(self, conversation: bytes, pictures: Sequence[int]) -> list[int]:
        first, length = conversation.split()
        if int(length) > 4096:
            raise JobError(Code.TOO_LARGE, "far too large")
        shown = [-number for number, count in enumerate(pictures, 1) for _ in range(count)]
        return shown + list(range(int(first), int(first) + int(length)))

    def words(self) -> FakeWords:
        return FakeWords()

    def works(self) -> bool:
        return True

    def cache(self, capacity: int, *, long: bool) -> FakeCache:
        self.caches.append(capacity)
        self.longs.append(long)
        return FakeCache(self, capacity, capacity if long else self.facts.switch)

    def own_cache(self, capacity: int, *, long: bool, **own: object) -> FakeCache:
        self.owned.append(own)
        return self.cache(capacity, long=long)


class Bench:
    """A scheduler, what it said, and how much memory it may believe in."""

    def __init__(
        self,
        slots: int = 2,
        memory: int = 1 << 40,
        *,
        vision: bool = False,
        switch: int | None = None,
        whole_prompts: bool = False,
    ) -> None:
        self.model = FakeModel(vision=vision, switch=switch, whole_prompts=whole_prompts)
        self.said: list[wire.Message] = []
        self.memory = memory
        self.scheduler = Scheduler(
            self.model,  # type: ignore[arg-type]
            slots=slots,
            default_max_tokens=10,
            send=self.said.append,
            clock=lambda: self.model.now,
            available=lambda: self.memory,
        )

    def submit(self, job: int, prompt: str, *files: bytes, most: int = 1, **options: Any) -> None:
        pictures = tuple((len(file), most) for file in files)
        payload = b"".join([prompt.encode(), *files])
        self.scheduler.take(wire.Submit(job, pictures=pictures, payload=payload, **options))

    def until(self, kind: type[wire.Message], job: int, *, most: int = 10_000) -> wire.Message:
        """Step until that is said; return it."""
        for _ in range(most):
            for message in self.said:
                if type(message) is kind and getattr(message, "job", 0) == job:
                    # How much memory the caches hold, and how long it took, is examined by itself.
                    if isinstance(message, wire.Done):
                        return replace(message, held=0, prefill_s=0, decode_s=0)
                    return replace(message, held=0) if isinstance(message, wire.Ended) else message
            assert not self.scheduler.idle
            self.scheduler.step()
        raise AssertionError(f"no {kind.__name__} of job {job}")

    def finish(self) -> None:
        while not self.scheduler.idle:
            self.scheduler.step()

    def text(self, job: int) -> str:
        return b"".join(m.payload for m in self.said if isinstance(m, wire.Text) and m.job == job).decode()

    @property
    def held(self) -> dict[int, int]:
        """What each job's last word told of the caches, in MiB."""
        return {message.job: message.held >> 20 for message in self.said if isinstance(message, wire.Ended)}

    @property
    def costs(self) -> dict[int, tuple[float, float]]:
        """What each job took of the worker's time, in seconds."""
        done = [message for message in self.said if isinstance(message, wire.Done)]
        return {each.job: (round(each.prefill_s, 6), round(each.decode_s, 6)) for each in done}

    def order(self, kind: type[wire.Message]) -> list[int]:
        return [getattr(message, "job", 0) for message in self.said if type(message) is kind]


def test_jobs_that_run_at_once_get_each_their_own_words() -> None:
    bench = Bench()
    bench.submit(1, "1000 50", max_tokens=3)
    bench.submit(2, "3000 20", max_tokens=2)
    bench.finish()

    assert bench.text(1) == " 1050 1051 1052"
    assert bench.text(2) == " 3020 3021"


def test_jobs_beyond_the_slots_wait_in_order() -> None:
    bench = Bench(slots=1)
    for job in (1, 2, 3):
        bench.submit(job, f"{job}000 20")
    bench.finish()

    assert bench.order(wire.Done) == [1, 2, 3]


def test_a_short_prompt_overtakes_a_long_one() -> None:
    bench = Bench()
    bench.submit(1, "1000 2000")
    bench.until(wire.Progress, 1)
    bench.submit(2, "9000 20", max_tokens=5)
    bench.until(wire.Done, 2)

    assert bench.text(1) == ""


def test_short_prompts_do_not_starve_a_long_one() -> None:
    bench = Bench(slots=3)
    bench.submit(1, "1000 1000", max_tokens=1)
    for job in range(2, 100):
        bench.submit(job, f"{job}000 60", max_tokens=1)
    bench.until(wire.Done, 1)

    assert len(bench.order(wire.Done)) < 60


def test_a_decoding_job_gets_a_token_between_every_two_slices_of_a_prompt() -> None:
    bench = Bench()
    bench.submit(1, "9000 20", max_tokens=50)
    bench.until(wire.Text, 1)
    bench.submit(2, "1000 2000")
    bench.until(wire.Text, 2)
    said = [type(message) for message in bench.said if isinstance(message, wire.Text | wire.Progress)]
    slices = said[said.index(wire.Text) + 1 : -1]  # of job 2, until its own first words

    assert len(slices) > 20
    assert slices[1::2] == [wire.Text] * (len(slices) // 2) or slices[::2] == [wire.Text] * (len(slices) // 2)


def test_a_waiting_job_that_is_canceled_never_starts() -> None:
    bench = Bench(slots=1)
    bench.submit(1, "1000 20")
    bench.submit(2, "3000 20")
    bench.scheduler.take(wire.Cancel(2))
    bench.finish()

    assert bench.order(wire.Started) == [1]


def test_a_running_job_that_is_canceled_frees_its_slot_at_once_and_leaves_its_cache() -> None:
    bench = Bench(slots=1)
    bench.submit(1, "1000 2000")
    bench.until(wire.Progress, 1)
    bench.scheduler.take(wire.Cancel(1))
    bench.submit(2, "1000 30", max_tokens=1)
    started = bench.until(wire.Started, 2)

    assert started == wire.Started(2, prompt=30, cached=16)
    bench.finish()
    assert bench.text(2) == " 1030"
    assert bench.order(wire.Done) == [2]


def test_the_next_job_with_the_same_beginning_computes_only_the_rest() -> None:
    bench = Bench(slots=1)
    bench.submit(1, "1000 800")
    bench.until(wire.Done, 1)
    bench.submit(2, "1000 804")
    done = bench.until(wire.Done, 2)

    assert isinstance(done, wire.Done)
    assert done.cached == 800
    assert bench.text(2).startswith(" 1804 1805")
    assert bench.model.caches == [1024]


def test_a_job_with_a_seed_does_not_build_on_decoded_tokens() -> None:
    bench = Bench(slots=1)
    bench.submit(1, "1000 804", max_tokens=40)
    bench.until(wire.Done, 1)
    bench.submit(2, "1000 840", seed=1)

    assert bench.until(wire.Started, 2) == wire.Started(2, prompt=840, cached=800)


def test_a_failing_job_ends_alone_and_takes_its_cache_with_it() -> None:
    bench = Bench()
    bench.submit(1, "1000 20", max_tokens=30)
    bench.until(wire.Text, 1)
    bench.submit(2, "9000 20")
    bench.model.fault = RuntimeError("native trouble")
    bench.until(wire.Refused, 2)
    bench.submit(3, "9000 20", max_tokens=1)
    bench.finish()

    refused = next(message for message in bench.said if isinstance(message, wire.Refused))
    assert refused.code == Code.INTERNAL
    assert bench.until(wire.Started, 3) == wire.Started(3, prompt=20, cached=0)
    assert len(bench.text(1).split()) == 30


def test_a_job_that_the_allocator_failed_is_told_so() -> None:
    bench = Bench()
    bench.model.fault = RuntimeError("Failed to allocate memory for requested buffer of size 5")
    bench.submit(1, "1000 20")
    refused = bench.until(wire.Refused, 1)

    assert isinstance(refused, wire.Refused)
    assert refused.code == Code.OUT_OF_MEMORY


def test_a_cache_that_does_not_fit_into_memory_is_refused_before_the_job_starts() -> None:
    bench = Bench(memory=RESERVE + (100 << 20))
    bench.submit(1, "1000 95", max_tokens=6)
    refused = bench.until(wire.Refused, 1)

    assert isinstance(refused, wire.Refused)
    assert "needs 101 MiB and the box has 100 MiB to spare" in refused.message
    assert bench.order(wire.Started) == []


def test_a_cache_without_room_to_grow_is_better_than_a_refusal() -> None:
    bench = Bench(memory=RESERVE + (101 << 20))
    bench.submit(1, "1000 95", max_tokens=6)
    bench.until(wire.Done, 1)

    assert bench.model.caches == [101]


def test_idle_caches_make_way_before_a_job_is_refused() -> None:
    bench = Bench(slots=2)
    bench.submit(1, "1000 500")
    bench.until(wire.Done, 1)
    reads = iter([RESERVE, RESERVE + (1000 << 20)])
    bench.scheduler._available = lambda: next(reads)
    bench.submit(2, "5000 500")
    bench.until(wire.Started, 2)

    bench.memory = 1 << 40
    bench.scheduler._available = lambda: bench.memory
    bench.submit(3, "1000 500")
    assert bench.until(wire.Started, 3) == wire.Started(3, prompt=500, cached=0)


class Device:
    """A model's device: room for so many tokens, which the library alone can see; the trial takes nearly all of it."""

    def __init__(self, bench: Bench, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self._make, self._tokens = bench.model.cache, tokens
        self._caches: WeakSet[FakeCache] = WeakSet()
        bench.model.token_bytes = bench.scheduler._token_bytes = 0
        monkeypatch.setattr(bench.model, "cache", self.cache)
        monkeypatch.setattr(bench.model, "works", self.works)

    def cache(self, capacity: int, *, long: bool) -> FakeCache:
        if sum(cache.capacity for cache in self._caches) + capacity > self._tokens:
            raise RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory")
        made = self._make(capacity, long=long)
        self._caches.add(made)
        return made

    def works(self) -> bool:
        try:
            self.cache(self._tokens - 100, long=False)
        except RuntimeError:
            return False
        return True


def test_idle_caches_make_way_where_only_the_library_sees_that_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    Device(bench, 2000, monkeypatch)
    bench.submit(1, "1000 900")
    bench.finish()
    bench.submit(2, "5000 1000", max_tokens=2)
    bench.finish()

    assert bench.text(2) == " 6000 6001"


def test_a_device_that_its_caches_fill_is_not_taken_for_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    Device(bench, 1600, monkeypatch)
    bench.submit(1, "1000 900")
    bench.finish()
    bench.submit(2, "3000 50")
    bench.until(wire.Started, 2)
    bench.model.fault = RuntimeError("CUDA out of memory")
    bench.until(wire.Refused, 2)
    bench.submit(3, "1000 900", max_tokens=1)
    bench.finish()

    assert bench.text(3) == " 1900"


def test_a_refusal_of_the_model_is_passed_on_and_frees_nothing_twice() -> None:
    bench = Bench(slots=1)
    bench.submit(1, "1000 5000")
    bench.submit(2, "1000 20", max_tokens=1)
    bench.finish()

    assert bench.order(wire.Refused) == [1]
    assert bench.order(wire.Done) == [2]


def test_a_cache_made_for_a_schema_is_nobody_elses() -> None:
    bench = Bench(slots=1)
    bench.submit(1, "1000 400", schema="{}")
    bench.until(wire.Done, 1)
    bench.submit(2, "1000 400")

    assert bench.until(wire.Started, 2) == wire.Started(2, prompt=400, cached=0)


def test_a_long_prompt_has_the_long_factors_from_its_first_token_on_and_is_computed_in_slices() -> None:
    bench = Bench(slots=1, switch=1000)
    bench.submit(1, "1000 1001", max_tokens=6)
    bench.until(wire.Done, 1)

    assert bench.model.longs == [True]
    assert bench.order(wire.Progress).count(1) > 5


def test_a_job_that_ends_where_the_first_factors_do_has_those_and_no_cache_beyond() -> None:
    bench = Bench(slots=1, switch=1000)
    bench.submit(1, "1000 995", max_tokens=5)
    bench.until(wire.Done, 1)

    assert (bench.model.longs, bench.model.caches) == ([False], [1000])


@pytest.mark.parametrize("temperature", [None, 0.7])
def test_an_answer_that_outgrows_the_first_factors_is_computed_again_in_slices_and_goes_on(
    temperature: float | None,
) -> None:
    bench = Bench(slots=1, switch=1000)
    bench.submit(1, "1000 990", max_tokens=30, temperature=temperature)
    done = bench.until(wire.Done, 1)

    assert bench.model.longs == [False, True]
    assert done == wire.Done(1, "length", prompt=990, completion=30, cached=0)
    assert len(bench.text(1).split()) == 30
    said = [type(message) for message in bench.said]
    assert wire.Progress in said[said.index(wire.Text) :]


def test_a_job_says_that_it_is_moved_to_another_cache_before_that_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(switch=1000)
    make, said = bench.model.cache, []

    def cache(capacity: int, *, long: bool) -> FakeCache:
        said.append(bench.said[-1:])
        return make(capacity, long=long)

    monkeypatch.setattr(bench.model, "cache", cache)
    bench.submit(1, "1000 990", max_tokens=20)
    bench.finish()

    assert said == [[], [wire.Progress(1, anew=True)]]


def test_an_answer_that_is_computed_again_has_the_words_that_would_have_come() -> None:
    bench = Bench(slots=1, switch=1000)
    bench.submit(1, "1000 990", max_tokens=30)
    bench.until(wire.Done, 1)

    assert bench.text(1) == "".join(f" {number}" for number in range(1990, 2020))


def test_an_answer_that_is_computed_again_keeps_no_other_job_from_its_words() -> None:
    bench = Bench(switch=1000)
    bench.submit(1, "1000 990", max_tokens=30)
    bench.submit(2, "5000 20", max_tokens=200)
    bench.until(wire.Done, 1)
    turns = [message.job for message in bench.said if isinstance(message, wire.Text | wire.Progress)]
    again = turns[len(turns) - turns[::-1].index(1) - 10 :]

    assert 2 in again


def test_what_an_answer_is_computed_again_takes_counts_as_the_answers() -> None:
    bench = Bench(slots=1, switch=1000)
    bench.submit(1, "1000 990", max_tokens=30)
    bench.finish()

    assert bench.costs == {1: (0.99, 1.031)}


def test_a_job_whose_memory_is_refused_when_its_answer_is_computed_again_ends_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(slots=1, switch=1000)
    bench.submit(1, "1000 990", max_tokens=30)
    bench.until(wire.Text, 1)
    monkeypatch.setattr(bench.model, "cache", Mock(side_effect=MemoryError))
    refused = bench.until(wire.Refused, 1)
    monkeypatch.undo()
    bench.submit(2, "1000 20", max_tokens=1)
    bench.finish()

    assert isinstance(refused, wire.Refused)
    assert refused.code == Code.OUT_OF_MEMORY
    assert bench.order(wire.Done) == [2]


def test_a_conversation_that_grows_long_is_computed_anew_once() -> None:
    bench = Bench(slots=1, switch=1000)
    cached = []
    for job, length in enumerate((900, 980, 1040, 1100), 1):
        bench.submit(job, f"1000 {length}", max_tokens=10)
        done = bench.until(wire.Done, job)
        assert isinstance(done, wire.Done)
        cached.append(done.cached)

    assert cached == [0, 904, 0, 1048]


def test_a_job_for_a_schema_that_may_outgrow_the_first_factors_has_the_long_ones_from_the_beginning() -> None:
    bench = Bench(slots=1, switch=1000)
    bench.submit(1, "1000 990", max_tokens=30, schema="{}")
    bench.until(wire.Done, 1)

    assert bench.model.longs == [True]


def test_where_prompts_must_be_whole_each_is_one_call_in_a_cache_of_its_own() -> None:
    bench = Bench(slots=1, whole_prompts=True)
    for job in (1, 2):
        bench.submit(job, "1000 900", max_tokens=10, temperature=0.7)
        assert bench.until(wire.Started, job) == wire.Started(job, prompt=900, cached=0, one_call=True)
        bench.until(wire.Done, job)

    assert bench.model.caches == [910, 910]
    assert bench.order(wire.Progress) == [1, 2]
    assert [slot.cache for slot in bench.scheduler._free] == [None]


def test_where_prompts_must_be_whole_the_library_draws_the_tokens_with_the_jobs_options() -> None:
    bench = Bench(slots=1, whole_prompts=True)
    bench.submit(1, "1000 20", max_tokens=3, temperature=0.7, seed=5)
    bench.until(wire.Done, 1)

    assert bench.text(1) == " 1020 1021 1022"
    assert bench.model.owned == [{"schema": None, "options": Options(temperature=0.7), "seed": 5}]


def test_where_prompts_must_be_whole_pictures_and_all_text_after_them_are_one_call() -> None:
    bench = Bench(vision=True, whole_prompts=True)
    bench.submit(1, "1000 1000", PHOTOGRAPH, max_tokens=1)
    bench.until(wire.Done, 1)

    assert bench.model.looks == [(1313, [313])]


def test_words_are_gathered_after_the_first_and_none_is_kept_back() -> None:
    bench = Bench()
    bench.submit(1, "1000 20", max_tokens=100)
    bench.finish()

    assert len(bench.text(1).split()) == 100
    assert 3 <= bench.order(wire.Text).count(1) <= 6
    first = next(message for message in bench.said if isinstance(message, wire.Text))
    assert first.payload == b" 1020"


def test_pictures_are_one_call_with_the_first_of_the_text_after_them_and_the_rest_comes_in_slices() -> None:
    bench = Bench(vision=True)
    bench.submit(1, "1000 1000", PHOTOGRAPH, PHOTOGRAPH, max_tokens=1)
    started = bench.until(wire.Started, 1)
    bench.finish()

    assert started == wire.Started(1, prompt=1626, cached=0, image=626)
    ((seen, pictures),) = bench.model.looks
    assert pictures == [313, 313]
    assert 626 < seen < 800
    assert bench.order(wire.Progress).count(1) > 5
    assert bench.until(wire.Done, 1) == wire.Done(1, "length", prompt=1626, completion=1, cached=0, image=626)


def test_a_picture_with_a_short_question_is_one_call() -> None:
    bench = Bench(vision=True)
    bench.submit(1, "1000 5", PHOTOGRAPH, most=4)
    bench.until(wire.Progress, 1)

    assert bench.model.looks == [(762, [757])]
    bench.until(wire.Text, 1)


def test_a_cache_that_cannot_be_rewound_serves_one_job() -> None:
    bench = Bench(slots=1, vision=True)
    for job in (1, 2):
        bench.submit(job, "1000 100", max_tokens=10)
        assert bench.until(wire.Started, job) == wire.Started(job, prompt=100, cached=0)
        bench.until(wire.Done, job)

    assert bench.model.caches == [110, 110]
    assert [slot.cache for slot in bench.scheduler._free] == [None]


def test_a_damaged_picture_is_refused_before_the_job_starts_and_leaves_the_slot_free() -> None:
    bench = Bench(slots=1, vision=True)
    bench.submit(1, "1000 5", PHOTOGRAPH[:5000])
    bench.submit(2, "1000 5", PHOTOGRAPH, max_tokens=1)
    bench.finish()

    assert bench.order(wire.Started) == [2]
    assert bench.order(wire.Done) == [2]
    refused = bench.until(wire.Refused, 1)
    assert isinstance(refused, wire.Refused)
    assert refused.code == Code.BAD_REQUEST


def test_pictures_that_exceed_the_window_are_refused_by_their_headers_with_what_to_do() -> None:
    bench = Bench(vision=True)
    # Its rest is missing, which nobody comes to see.
    bench.submit(1, "1000 5", PHOTOGRAPH[:5000], PHOTOGRAPH, most=16, max_tokens=10)
    refused = bench.until(wire.Refused, 1)

    assert isinstance(refused, wire.Refused)
    assert refused.message == (
        "the prompt has 5,023 tokens, 5,018 of them its pictures', and the answer may have 10: together 5,033, and "
        "the model's window here is 4,096: lower the pictures' detail, or send fewer"
    )


def test_pictures_that_exceed_the_memory_are_refused_with_what_to_do() -> None:
    bench = Bench(memory=RESERVE + (780 << 20), vision=True)
    bench.submit(1, "1000 5", PHOTOGRAPH, most=4, max_tokens=6)
    refused = bench.until(wire.Refused, 1)

    assert isinstance(refused, wire.Refused)
    assert refused.message == (
        "the job's KV cache needs 768 MiB and its pictures 22 MiB, and the box has 780 MiB to spare: lower the "
        "pictures' detail, shorten the prompt, lower max_tokens, or try again when other jobs have ended"
    )


def watch(bench: Bench, job: int, picture: bytes, prompt: str = "1000 5", **options: Any) -> wire.Message:
    """Submit a frame that is to be looked at when it shows something new; return the first that is said to it."""
    bench.submit(job, prompt, picture, camera="porch", similar_bits=2, max_tokens=1, **options)
    while not any(getattr(message, "job", 0) == job for message in bench.said):
        bench.scheduler.step()
    return next(message for message in bench.said if getattr(message, "job", 0) == job)


def test_a_frame_that_shows_nothing_new_is_not_looked_at() -> None:
    bench = Bench(vision=True)
    watch(bench, 1, PHOTOGRAPH)
    bench.finish()

    assert watch(bench, 2, PHOTOGRAPH) == wire.Similar(2)
    assert bench.scheduler.idle
    assert len(bench.model.looks) == 1
    assert isinstance(watch(bench, 3, PHOTOGRAPHS[1].read_bytes()), wire.Started)


def test_a_frame_is_looked_at_when_the_last_one_was_canceled_on_the_way() -> None:
    bench = Bench(vision=True)
    watch(bench, 1, PHOTOGRAPH)
    bench.scheduler.take(wire.Cancel(1))

    assert isinstance(watch(bench, 2, PHOTOGRAPH), wire.Started)


def test_a_frame_is_looked_at_when_something_else_is_asked() -> None:
    bench = Bench(vision=True)
    watch(bench, 1, PHOTOGRAPH)
    bench.finish()

    assert isinstance(watch(bench, 2, PHOTOGRAPH, "2000 5"), wire.Started)


def test_a_jobs_last_word_tells_what_all_caches_hold_idle_ones_too() -> None:
    bench = Bench()
    bench.submit(1, "1000 50")
    bench.finish()
    bench.submit(2, "3000 600", max_tokens=2)
    bench.finish()

    assert bench.held == {1: 256, 2: 256 + 768}


def test_a_cache_that_goes_with_its_job_is_not_held_any_more_at_the_jobs_last_word() -> None:
    bench = Bench(vision=True)
    for job in (1, 2):
        bench.submit(job, "1000 50")
    bench.scheduler.step()
    bench.scheduler.step()
    bench.scheduler.take(wire.Cancel(1))
    bench.finish()

    assert bench.held == {1: 60, 2: 0}


def test_a_refused_jobs_last_word_tells_of_the_caches_that_made_way_for_it() -> None:
    bench = Bench()
    bench.submit(1, "1000 50")
    bench.finish()
    bench.memory = RESERVE
    bench.submit(2, "3000 50")
    bench.finish()

    assert bench.held == {1: 256, 2: 0}


def test_what_lies_in_a_devices_own_memory_is_not_held() -> None:
    bench = Bench()
    bench.model.token_bytes = 0
    scheduler = Scheduler(
        bench.model,  # type: ignore[arg-type]
        slots=1,
        default_max_tokens=10,
        send=bench.said.append,
        clock=lambda: bench.model.now,
        available=lambda: 0,
    )
    scheduler.take(wire.Submit(1, payload=b"1000 50"))
    while not scheduler.idle:
        scheduler.step()

    assert bench.held == {1: 0}


def test_a_job_whose_words_are_held_back_says_each_second_that_it_lives() -> None:
    bench = Bench()
    bench.submit(1, "1000 16", max_tokens=3500, stop=(" 1016" + "".join(f" {n}" for n in range(1017, 5000)),))
    bench.finish()

    assert bench.order(wire.Progress) == [1] * 4


def test_a_jobs_last_word_tells_how_long_the_worker_worked_for_it_whatever_ran_beside_it() -> None:
    bench = Bench()
    bench.submit(1, "1000 500", max_tokens=100)
    bench.submit(2, "9000 20", max_tokens=10)
    bench.finish()

    assert bench.costs == {1: (0.5, 0.1), 2: (0.02, 0.01)}
    assert bench.model.now == pytest.approx(0.63)


def test_what_was_cached_costs_nothing() -> None:
    bench = Bench(slots=1)
    for job in (1, 2):
        bench.submit(job, "1000 800", max_tokens=1)
    bench.finish()

    assert bench.costs == {1: (0.8, 0.001), 2: (0.008, 0.001)}


def test_the_time_in_which_a_job_is_made_ready_counts_as_its_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()

    def slowly() -> FakeWords:
        bench.model.now += 2
        return FakeWords()

    monkeypatch.setattr(bench.model, "words", slowly)
    bench.submit(1, "1000 20", max_tokens=1)
    bench.finish()

    assert bench.costs == {1: (2.02, 0.001)}
