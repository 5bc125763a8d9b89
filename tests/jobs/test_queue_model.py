"""The queue beside its rules in plain words, through any sequence of operations."""

import copy
import math
from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.admission import Queue, Ticket
from agent.contract.jobs import Frame, Job, Message, Priority

MOST = 6
MOST_OF_CAMERAS = 5
MOST_OF_A_CLIENT = 4
MOST_BYTES = 64 << 20
PATIENCE_S = 120
# 15 MiB: the bound is reached by five of them, before that on the number of jobs.
PICTURE = bytes(15 << 20)
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")

Party = tuple[str, str | None]

cameras = st.sampled_from([("c", "porch"), ("c", "gate"), ("d", "porch")])
clients = st.sampled_from(["c", "d", "e"])
priorities = st.sampled_from(PRIORITIES)
deadlines = st.none() | st.integers(0, 300).map(float)


class Beside(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue(MOST, MOST_OF_A_CLIENT)
        self.now = 0.0
        self.risen_at = -1.0
        self.made = 0
        self.waiting: dict[str, Ticket] = {}
        self.since: dict[str, float] = {}
        self.risen: dict[str, Priority] = {}
        self.held: list[Job] = []
        self.texts_in_a_row = dict.fromkeys(PRIORITIES, 0)
        self.came: dict[tuple[Priority, Party], float] = {}
        self.last_start: dict[Party, float] = {}
        self.last_frame: dict[Party, float] = {}

    @rule(
        client=clients,
        priority=priorities,
        deadline=deadlines,
        deaths=st.sampled_from([0, 0, 0, 1]),
        pictures=st.integers(0, 1),
    )
    def push_text(self, client: str, priority: Priority, deadline: float | None, deaths: int, pictures: int) -> None:
        self.push(self.job(client, priority, pictures), deadline, deaths)

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
        if self.queue.hold(job) is None:
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
        suspects = [name for name, each in self.waiting.items() if each.deaths]
        taken = self.queue.pop(self.now, running, 2, suspect_runs=suspect_runs)
        if suspect_runs or (suspects and running):
            assert taken is None
            return
        self.rise()
        may = suspects[:1] or self.may_start()
        if taken is None:
            assert may == []
            return
        assert taken.job.id in may
        self.started(taken.job)
        del self.waiting[taken.job.id]

    @rule(limit=st.integers(1, 8))
    def ask_who_starts_first(self, limit: int) -> None:
        self.rise()
        told = [each.job.id for each in self.queue.first(limit, self.now)]
        if not any(each.deaths for each in self.waiting.values()):
            assert told == self.order(self.queue)[:limit]

    @rule(client=clients, camera=st.sampled_from([None, "porch"]), frame=st.booleans(), priority=priorities)
    def ask_who_would_start_before(self, client: str, camera: str | None, priority: Priority, *, frame: bool) -> None:
        job = self.job(client, priority, 0, camera, Frame() if frame and camera else None)
        if any(each.deaths for each in self.waiting.values()) or (frame and self.older(job)):
            return
        self.rise()
        tickets, count = self.queue.before(job, 3, self.now)
        then = copy.deepcopy(self.queue)
        then.push(Ticket(job, self.now))
        order = self.order(then)
        assert [each.job.id for each in tickets] == [each for each in order if each != job.id][: min(count, 3)]
        if job.id in order:
            at = order.index(job.id)
            assert at == count or (count > 3 and at <= count)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.waiting:
            ticket = self.waiting.pop(data.draw(st.sampled_from(sorted(self.waiting))))
            assert self.queue.remove(ticket.job.key) is ticket

    @rule(seconds=st.sampled_from([1, 2, 3, 50, 120]))
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
        frames = [self.party(each.job) for each in self.waiting.values() if each.job.frame and not each.deaths]
        assert len(frames) == len(set(frames))

    @invariant()
    def the_bounds_hold_but_for_jobs_that_run_again(self) -> None:
        waiting = [each.job for each in self.waiting.values() if not each.deaths]
        assert len(waiting) <= MOST
        assert sum(job.camera is not None for job in waiting) <= MOST_OF_CAMERAS
        assert max(Counter(job.client for job in waiting).values(), default=0) <= MOST_OF_A_CLIENT
        assert sum(len(each) for job in waiting for each in job.pictures) <= MOST_BYTES

    @invariant()
    def the_next_event_is_not_late(self) -> None:
        moments = [each.deadline for each in self.waiting.values() if each.deadline is not None]
        lanes = Counter(self.lane(each.job) for each in self.waiting.values() if not each.deaths)
        alone = [each for each in self.waiting.values() if lanes[self.lane(each.job)] == 1]
        moments += [due for each in alone if (due := self.due_at(each)) > self.now]
        told = self.queue.next_event(self.now)
        assert not moments or (told is not None and told <= min(moments))

    @invariant()
    def a_place_that_is_held_is_nobody_elses(self) -> None:
        assert self.queue.full == (len(self.waiting) + len(self.held) >= MOST)
        assert self.queue.share == min(1.0, (len(self.waiting) + len(self.held)) / MOST)
        jobs = [*self.held, *(each.job for each in self.waiting.values())]
        assert self.queue._bytes == sum(len(each) for job in jobs for each in job.pictures)
        assert self.queue._pictures == sum(job.camera is not None for job in jobs)
        assert self.queue._by_client == Counter(job.client for job in jobs)

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

    def party(self, job: Job) -> Party:
        return job.client, job.camera

    def push(self, job: Job, deadline: float | None, deaths: int) -> None:
        if not deaths:
            refused = self.queue.refusal(job)
            assert (self.queue.hold(job) is None) == (refused is None)
            if refused is not None:
                return
            self.queue.release(job)
        self.wait(job, deadline, deaths)

    def wait(self, job: Job, deadline: float | None, deaths: int) -> None:
        self.queue.first(1, self.now)
        self.rise()
        ticket = Ticket(job, self.now, deadline, deaths=deaths)
        ahead, superseded = self.queue.push(ticket)
        older = [] if deaths or job.frame is None else self.older(job)
        assert ([] if superseded is None else [superseded.job.id]) == older
        self.waiting[job.id] = ticket
        self.since[job.id] = self.since[older[0]] if older else self.now
        self.risen[job.id] = job.priority
        if not deaths:
            self.note_came(job)
        for name in older:
            del self.waiting[name]
        order = [each.job.id for each in self.queue.first(99, self.now)]
        assert job.id not in order or order.index(job.id) <= ahead

    def older(self, job: Job) -> list[str]:
        """Return the name of the frame that waits of this camera, if there is one."""
        frames = {name: each.job for name, each in self.waiting.items() if each.job.frame and not each.deaths}
        return [name for name, each in frames.items() if self.party(each) == self.party(job)]

    def lane(self, job: Job) -> tuple[Priority, Party]:
        return self.risen[job.id], self.party(job)

    def note_came(self, job: Job) -> None:
        since = self.since[job.id]
        self.came[self.lane(job)] = min(since, self.came.get(self.lane(job), since))

    def rise(self) -> None:
        """Raise the priorities of what has waited for long: one step for each two minutes, and one at a moment."""
        if self.now <= self.risen_at:
            return
        self.risen_at = self.now
        for name, each in self.waiting.items():
            steps = int((self.now - self.since[name]) // PATIENCE_S)
            rank = max(PRIORITIES.index(each.job.priority) - steps, PRIORITIES.index(self.risen[name]) - 1, 0)
            risen = PRIORITIES[rank]
            if not each.deaths and risen != self.risen[name]:
                self.risen[name] = risen
                self.note_came(each.job)

    def order(self, queue: Queue) -> list[str]:
        """Return the names of what starts now, one after another."""
        then = copy.deepcopy(queue)
        return [each.job.id for each in iter(lambda: then.pop(self.now, 0, 1, suspect_runs=False), None)]

    def may_start(self) -> list[str]:
        """Say which jobs may start now: one, or several where the rules do not choose."""
        due = [each.job for each in self.waiting.values() if self.due_at(each) <= self.now]
        for priority in PRIORITIES:
            texts = [job for job in due if self.risen[job.id] == priority and job.camera is None]
            pictures = [job for job in due if self.risen[job.id] == priority and job.camera is not None]
            if texts and (not pictures or self.texts_in_a_row[priority] < 3):
                return self.whose_turn(texts)
            if pictures:
                return self.whose_turn(pictures)
        return []

    def whose_turn(self, jobs: list[Job]) -> list[str]:
        """Say whose first job it may be: of those whose last start is longest ago, or who came then and had none."""
        ago = min(map(self.without_a_turn_since, jobs))
        longest = [job for job in jobs if self.without_a_turn_since(job) == ago]
        firsts = {self.party(job): job.id for job in reversed(longest)}
        return list(firsts.values())

    def without_a_turn_since(self, job: Job) -> float:
        return self.last_start.get(self.party(job), self.came[self.lane(job)])

    @invariant()
    def note_who_waits_no_longer(self) -> None:
        lanes = {self.lane(each.job) for each in self.waiting.values() if not each.deaths}
        self.came = {lane: at for lane, at in self.came.items() if lane in lanes}

    def due_at(self, ticket: Ticket) -> float:
        if ticket.job.frame is None or ticket.deaths:
            return -math.inf
        return self.last_frame.get(self.party(ticket.job), -math.inf) + ticket.job.frame.min_interval_s

    def started(self, job: Job) -> None:
        if job.camera is None:
            self.texts_in_a_row[self.risen[job.id]] += 1
        else:
            self.texts_in_a_row[self.risen[job.id]] = 0
        self.last_start[self.party(job)] = self.now
        if job.frame is not None:
            self.last_frame[self.party(job)] = self.now


TestBeside = Beside.TestCase
