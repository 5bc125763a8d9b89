"""When a silent worker counts as hung, decided on plain state."""

import pytest

from agent.engines import wire
from agent.engines.watchdog import Effort, Patience, Watchdog

PATIENCE = Patience()


class Watch:
    """A watchdog, asked once a second, and a worker whose effort the test tells."""

    def __init__(self, *, loaded: bool = True) -> None:
        self.now = 1000.0
        self.effort = Effort()
        self.dog = Watchdog(PATIENCE, self.now)
        if loaded:
            self.say(wire.Ready(100, "cpu", 1.0))

    def say(self, *messages: wire.Message, after_s: float = 0.0) -> None:
        """Let the worker say messages, each after a silence, in which it is looked at as ever."""
        for message in messages:
            assert self.silent_for(after_s) is None
            self.dog.hear(message, self.now)

    def submit(self, job: int) -> None:
        self.dog.submitted(job, self.now)

    def silent_for(self, seconds: float, cpu: int = 0, faults: int = 0) -> float | None:
        """Let time pass, the worker doing so much in each second; return when it counted as hung, if it did."""
        begun, end = self.now, self.now + seconds
        while self.now < end:
            self.now = min(self.now + PATIENCE.watch_s, end)
            self.effort = Effort(self.effort.cpu + cpu, self.effort.faults + faults)
            if self.dog.look(self.effort, self.now):
                return self.now - begun
        return None

    def start(self, job: int, step_s: float | None = None) -> None:
        """Let a job start, and with ``step_s``, say its first words."""
        self.submit(job)
        self.say(wire.Started(job, 20, 0))
        if step_s is not None:
            self.say(wire.Progress(job), wire.Text(job, 1, b"x"), after_s=step_s)


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_a_worker_without_jobs_may_be_silent_for_ever(watch: Watch) -> None:
    assert watch.silent_for(10_000) is None


def test_while_no_step_was_measured_a_worker_may_be_silent_for_the_most(watch: Watch) -> None:
    watch.start(1)
    assert watch.silent_for(1000) == 121


def test_a_fast_worker_that_stops_is_found_after_the_least(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    assert watch.silent_for(1000) == 11


def test_a_slow_worker_may_be_silent_for_ten_of_its_steps(watch: Watch) -> None:
    watch.start(1, step_s=4.0)
    assert watch.silent_for(1000) == 41


def test_no_step_is_so_slow_that_the_most_is_exceeded(watch: Watch) -> None:
    watch.start(1, step_s=60.0)
    assert watch.silent_for(1000) == 121


def test_a_slow_moment_is_forgotten_after_some_thousand_messages(watch: Watch) -> None:
    watch.start(1, step_s=5.0)
    watch.say(*[wire.Text(1, 1, b"x")] * 3000, after_s=0.0)
    assert watch.silent_for(1000) == 11


def test_a_worker_that_computes_before_its_job_has_started_may_be_silent_for_the_most(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    watch.submit(2)
    assert watch.silent_for(1000, cpu=100) == 121


def test_a_worker_that_does_nothing_before_its_job_has_started_is_found_after_the_least(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    watch.say(wire.Done(1, "stop", 1, 1, 0))
    watch.silent_for(5000)
    watch.submit(2)
    assert watch.silent_for(1000) == 11


def test_a_job_given_to_a_silent_worker_does_not_buy_it_time(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    watch.silent_for(7)
    watch.submit(2)
    assert watch.silent_for(1000) == 4


def test_a_worker_that_computes_without_end_in_a_step_is_found_as_one_that_stops(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    assert watch.silent_for(1000, cpu=100) == 11


def test_a_worker_that_is_swapped_in_may_take_as_long_as_a_load(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    assert watch.silent_for(5000, faults=1) == 1801


def test_a_worker_that_was_swapped_in_is_found_as_any_other(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    assert watch.silent_for(300, faults=1) is None
    assert watch.silent_for(1000) == 11


def test_a_worker_that_was_swapped_in_before_its_job_has_started_may_compute_for_the_most(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    watch.submit(2)
    assert watch.silent_for(300, faults=1) is None
    assert watch.silent_for(1000, cpu=100) == 121


def test_a_worker_that_reads_in_every_other_look_is_not_blamed_for_those_between(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    assert [watch.silent_for(1, faults=n % 2) for n in range(300)] == [None] * 300


def test_each_token_of_a_picture_call_that_was_never_measured_gives_half_a_second_more(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    watch.submit(2)
    watch.say(wire.Started(2, 100, 0, image=90))
    assert watch.silent_for(1000) == 61


def test_a_prompt_that_is_one_call_without_pictures_has_a_picture_calls_time(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    watch.submit(2)
    watch.say(wire.Started(2, 100, 0, one_call=True))
    assert watch.silent_for(1000) == 61


def test_a_picture_call_may_take_ten_times_as_long_a_token_as_the_one_before(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    for job, after_s in ((2, 1.0), (3, 0.0)):
        watch.submit(job)
        watch.say(wire.Started(job, 100, 0, image=90))
        if after_s:
            watch.say(wire.Progress(job), after_s=after_s)
    assert watch.silent_for(1000) == 21


def test_a_picture_call_teaches_nothing_about_other_steps(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    watch.submit(2)
    watch.say(wire.Started(2, 100, 0, image=90))
    watch.say(wire.Progress(2), after_s=30)
    assert watch.silent_for(1000) == 11


def test_a_job_that_is_moved_to_another_cache_may_compute_as_long_as_one_that_has_not_started(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    watch.say(wire.Progress(1, anew=True))
    assert watch.silent_for(1000, cpu=100) == 121


def test_a_job_that_was_moved_to_another_cache_is_watched_as_before_once_it_goes_on(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    watch.say(wire.Progress(1, anew=True))
    assert watch.silent_for(40, cpu=100) is None
    watch.say(wire.Progress(1))
    assert watch.silent_for(1000, cpu=100) == 11


def test_time_in_which_the_agent_itself_did_not_run_does_not_count(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    for _ in range(5):
        watch.now += 1000
        assert not watch.dog.look(watch.effort, watch.now)


def test_time_in_which_the_agent_itself_did_not_run_tells_nothing_of_the_workers_pace(watch: Watch) -> None:
    watch.start(1, step_s=0.1)
    before = watch.dog.allowed_s
    watch.now += 13.8
    watch.say(wire.Text(1, 2, b"x"))
    assert watch.dog.allowed_s == before


def test_a_canceled_job_is_owed_until_the_worker_has_said_so(watch: Watch) -> None:
    watch.start(1, step_s=0.03)
    assert watch.dog.owes == 1
    watch.say(wire.Canceled(1))
    assert watch.dog.owes == 0


def test_what_is_said_of_unknown_jobs_is_owed_to_nobody(watch: Watch) -> None:
    watch.say(wire.Started(7, 100, 0, image=90), wire.Progress(7))
    assert watch.dog.owes == 0


def test_a_worker_that_loads_and_does_nothing_is_found_after_the_most() -> None:
    assert Watch(loaded=False).silent_for(5000) == 121


def test_a_load_from_storage_so_slow_that_every_other_look_sees_nothing_has_half_an_hour() -> None:
    watch = Watch(loaded=False)
    assert [watch.silent_for(1, cpu=n % 2) for n in range(1800)] == [None] * 1800


def test_a_worker_that_loads_and_computes_has_half_an_hour() -> None:
    assert Watch(loaded=False).silent_for(5000, cpu=100) == 1801
