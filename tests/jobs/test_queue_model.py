"""The queue beside its rules in plain words, through any sequence of operations."""

import math

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.admission import Pace, Queue, Ticket
from agent.contract.jobs import Frame, Job, Message, Priority

MOST = 6
MOST_BYTES = 64 << 20
# 15 MiB: the bound is reached by five of them, before that on the number of jobs.
PICTURE = bytes(15 << 20)

cameras = st.sampled_from([("c", "porch"), ("c", "gate"), ("d", "porch")])
priorities = st.sampled_from(["low", "normal", "high"])
deadlines = st.none() | st.integers(0, 20).map(float)


class Beside(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue(MOST)
        self.now = 0.0
        self.made = 0
        self.waiting: dict[str, Ticket] = {}
        self.held: list[Job] = []
        self.texts_in_a_row = {"low": 0, "normal": 0, "high": 0}
        self.came: dict[tuple[Priority, tuple[str, str | None]], float] = {}
        self.last_start: dict[tuple[str, str | None], float] = {}
        self.last_frame: dict[tuple[str, str | None], float] = {}

    @rule(priority=priorities, deadline=deadlines, deaths=st.sampled_from([0, 0, 0, 1]), pictures=st.integers(0, 1))
    def push_text(self, priority: Priority, deadline: float | None, deaths: int, pictures: int) -> None:
        self.push(self.job("c", priority, pictures), deadline, deaths)

    @rule(camera=cameras, priority=priorities, deadline=deadlines)
    def push_json_of_a_camera(self, camera: tuple[str, str], priority: Priority, deadline: float | None) -> None:
        self.push(self.job(camera[0], priority, 1, camera[1]), deadline, 0)

    @rule(
        camera=cameras,
        interval_s=st.sampled_from([0.0, 2.0, 5.0]),
        priority=priorities,
        deadline=deadlines,
        deaths=st.sampled_from([0, 0, 0, 1]),
    )
    def push_frame(
        self, camera: tuple[str, str], interval_s: float, priority: Priority, deadline: float | None, deaths: int
    ) -> None:
        job = self.job(camera[0], priority, 1, camera[1], Frame(min_interval_s=interval_s))
        self.push(job, deadline, deaths)

    @rule(camera=cameras, is_frame=st.booleans())
    def hold_a_place_while_the_disk_writes(self, camera: tuple[str, str], *, is_frame: bool) -> None:
        job = self.job(camera[0], "normal", 1, camera[1], Frame() if is_frame else None)
        if self.queue.hold(job, Pace(), 2) is None:
            self.held.append(job)

    @rule(data=st.data(), is_written=st.booleans())
    def the_disk_has_written(self, data: st.DataObject, *, is_written: bool) -> None:
        if self.held:
            job = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
            self.queue.release(job)
            if is_written:
                self.wait(job, None, 0)

    @rule(running=st.integers(0, 1), suspect_runs=st.booleans())
    def pop(self, running: int, *, suspect_runs: bool) -> None:
        taken = self.queue.pop(self.now, running, 2, suspect_runs=suspect_runs)
        may = [] if suspect_runs else self.may_start(running)
        if taken is None:
            assert may == []
            return
        assert taken.job.id in may
        del self.waiting[taken.job.id]
        self.started(taken.job)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.waiting:
            ticket = self.waiting.pop(data.draw(st.sampled_from(sorted(self.waiting))))
            assert self.queue.remove(ticket.job.key) == ticket

    @rule(seconds=st.integers(1, 3))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        late = {name for name, each in self.waiting.items() if each.deadline is not None and each.deadline <= self.now}
        assert {each.job.id for each in self.queue.expired(self.now)} == late
        for name in late:
            del self.waiting[name]

    @invariant()
    def what_waits_is_what_came_and_did_not_go(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert all(each.job.key in self.queue for each in self.waiting.values())

    @invariant()
    def of_each_camera_one_frame_waits(self) -> None:
        frames = [self.camera(each.job) for each in self.waiting.values() if each.job.frame and not each.deaths]
        assert len(frames) == len(set(frames))

    @invariant()
    def the_bounds_hold_but_for_jobs_that_run_again(self) -> None:
        waiting = [each.job for each in self.waiting.values() if not each.deaths]
        assert len(waiting) <= MOST
        assert sum(len(each) for job in waiting for each in job.pictures) <= MOST_BYTES

    @invariant()
    def the_next_event_is_not_late(self) -> None:
        moments = [each.deadline for each in self.waiting.values() if each.deadline is not None]
        moments += [due for each in self.waiting.values() if (due := self.due_at(each)) > self.now]
        told = self.queue.next_event(self.now)
        assert not moments or (told is not None and told <= min(moments))

    @invariant()
    def a_place_that_is_held_is_nobody_elses(self) -> None:
        assert self.queue.full == (len(self.waiting) + len(self.held) >= MOST)
        jobs = [*self.held, *(each.job for each in self.waiting.values())]
        assert self.queue._bytes == sum(len(each) for job in jobs for each in job.pictures)

    def teardown(self) -> None:
        for job in self.held:
            self.queue.release(job)
        assert {each.job.id for each in self.queue.clear()} == set(self.waiting)
        assert len(self.queue) == 0
        assert self.queue._bytes == 0

    def job(
        self, client: str, priority: Priority, pictures: int, camera: str | None = None, frame: Frame | None = None
    ) -> Job:
        self.made += 1
        return Job(
            client=client,
            id=f"j{self.made}",
            messages=(Message(role="user", content="x"),),
            priority=priority,
            pictures=(PICTURE,) * pictures,
            camera=camera,
            frame=frame,
        )

    def camera(self, job: Job) -> tuple[str, str | None]:
        return job.client, job.camera

    def push(self, job: Job, deadline: float | None, deaths: int) -> None:
        if not deaths:
            if self.queue.hold(job, Pace(), 2) is not None:
                return
            self.queue.release(job)
        self.wait(job, deadline, deaths)

    def wait(self, job: Job, deadline: float | None, deaths: int) -> None:
        ticket = Ticket(job, self.now, deadline, deaths=deaths)
        superseded = self.queue.push(ticket).superseded
        older = [
            name
            for name, each in self.waiting.items()
            if job.frame and each.job.frame and not deaths + each.deaths and self.camera(each.job) == self.camera(job)
        ]
        assert ([] if superseded is None else [superseded.job.id]) == older
        for name in older:
            del self.waiting[name]
        self.waiting[job.id] = ticket
        if not deaths:
            self.came.setdefault((job.priority, self.camera(job)), self.now)

    def may_start(self, running: int) -> list[str]:
        """Say which jobs may start now: one, or several where the rules do not choose."""
        suspects = [name for name, each in self.waiting.items() if each.deaths]
        if suspects:
            return [] if running else suspects[:1]
        due = [each.job for each in self.waiting.values() if self.due_at(each) <= self.now]
        for priority in ("high", "normal", "low"):
            texts = [job for job in due if job.priority == priority and job.camera is None]
            pictures = [job for job in due if job.priority == priority and job.camera is not None]
            if texts and (not pictures or self.texts_in_a_row[priority] < 3):
                return [texts[0].id]
            if pictures:
                ago = min(map(self.since, pictures))
                longest = [job for job in pictures if self.since(job) == ago]
                firsts = {self.camera(job): job.id for job in reversed(longest)}
                return list(firsts.values())
        return []

    def since(self, job: Job) -> tuple[float, bool]:
        """Say since when a camera has no turn: a new one, since it began to wait."""
        if self.camera(job) in self.last_start:
            return self.last_start[self.camera(job)], True
        return self.came[job.priority, self.camera(job)], False

    @invariant()
    def note_who_waits_no_longer(self) -> None:
        lanes = {(each.job.priority, self.camera(each.job)) for each in self.waiting.values() if not each.deaths}
        self.came = {lane: at for lane, at in self.came.items() if lane in lanes}

    def due_at(self, ticket: Ticket) -> float:
        if ticket.job.frame is None or ticket.deaths:
            return -math.inf
        return self.last_frame.get(self.camera(ticket.job), -math.inf) + ticket.job.frame.min_interval_s

    def started(self, job: Job) -> None:
        if job.camera is None:
            self.texts_in_a_row[job.priority] += 1
            return
        self.texts_in_a_row[job.priority] = 0
        self.last_start[self.camera(job)] = self.now
        if job.frame is not None:
            self.last_frame[self.camera(job)] = self.now


TestBeside = Beside.TestCase
