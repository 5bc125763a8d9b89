"""Which job's native call comes next.

One thread makes every call, one after another, because the library's calls hold the GIL and use every core. Fair
shares come from keeping each call short: a turn is one token for every job that decodes, then one slice of one
prompt. Between two calls the caller looks whether the parent said something.
"""

import ctypes
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from agent.contract.errors import JobError
from agent.engines import wire
from agent.engines.worker import limits
from agent.engines.worker.crops import Crops, cut
from agent.engines.worker.faults import NATIVE, DeviceLost, translated
from agent.engines.worker.pictures import Picture
from agent.engines.worker.sampling import Sampler
from agent.engines.worker.similar import LastLooks, Look, perceptual_hash
from agent.engines.worker.slots import Pace, choose
from agent.engines.worker.task import Slot, Task, options

if TYPE_CHECKING:  # the library stays out of whoever tests this with a model of its own
    from agent.engines.worker.model import Cache, Model

# Words are gathered for so long, in seconds, after the first. At 100 tokens/s a frame a token would cost the parent
# 2 % of a core that inference could use; a model of 40 tokens/s or less has a frame a token.
_GATHER_S = 0.025
# A second without a word, though every token is computed, would look to the parent like the begin of a hang.
_ALIVE_S = 1.0
# Of so many turns, the oldest prompt is sure of one.
_OLDEST = 4


class Scheduler:
    """Runs jobs in a fixed number of slots; those beyond wait, first come first served.

    Args:
        model: the loaded model.
        slots: how many jobs run at the same time.
        default_max_tokens: the longest answer of a job that does not say.
        send: gives a message to the parent.
        clock: the monotonic clock, in seconds.
        available: how much memory could be had, in bytes.

    Raises:
        DeviceLost: from `step`; no job was refused for it.

    """

    def __init__(
        self,
        model: "Model",
        *,
        slots: int,
        default_max_tokens: int,
        send: Callable[[wire.Message], None],
        clock: Callable[[], float],
        available: Callable[[], int],
    ) -> None:
        self._model = model
        self._default_max_tokens = default_max_tokens
        self._send = send
        self._clock = clock
        self._available = available
        self._token_bytes = model.token_bytes
        self._free = [Slot() for _ in range(slots)]
        self._waiting: deque[wire.Submit] = deque()
        self._running: list[Task] = []
        self._turn: deque[Task] = deque()
        self._turns = 0
        self._count = 0
        self._pace = Pace()
        self._looks = LastLooks()
        self._said_at = clock()

    def __repr__(self) -> str:
        return f"<Scheduler {self._running}, {len(self._waiting)} waiting, {len(self._free)} free, {self._pace}>"

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until the parent says something."""
        return not self._running and not self._waiting

    @property
    def _held(self) -> int:
        """The size of all caches, in bytes; what is in a device's own memory counts nothing here."""
        slots = [*self._free, *(task.slot for task in self._running)]
        return sum(slot.capacity for slot in slots) * self._token_bytes

    @property
    def _idle(self) -> list[Slot]:
        """The free slots with a cache, the one that was longest unused first."""
        return sorted((slot for slot in self._free if slot.cache), key=lambda slot: slot.used)

    def take(self, message: wire.Message) -> None:
        """Take in what the parent says. None of it computes anything."""
        if isinstance(message, wire.Submit):
            self._waiting.append(message)
        elif isinstance(message, wire.Cancel):
            self._waiting = deque(submit for submit in self._waiting if submit.job != message.job)
            for task in [task for task in self._running if task.job == message.job]:
                self._release(task)
            self._end(wire.Canceled(message.job))

    def step(self) -> None:
        """Do the next short piece of work: admit a job, or make one native call for one."""
        if self._waiting and self._free:
            self._admit(self._waiting.popleft())
            return
        if not self._turn:
            self._turn.extend(self._next_turn())
        if self._turn:
            self._advance(self._turn.popleft())

    def _next_turn(self) -> list[Task]:
        """Return whose call comes next, in order.

        Of several prompts, the one with the shortest rest is next, so that a short question is not kept waiting
        by long ones; every fourth turn is the oldest one's, so that no number of short ones starves it.
        """
        self._turns += 1
        prefilling = [task for task in self._running if task.remaining]
        turn = [task for task in self._running if not task.remaining]
        if prefilling:
            shortest = min(prefilling, key=lambda task: task.remaining)
            turn.append(shortest if self._turns % _OLDEST else prefilling[0])
        return turn

    def _advance(self, task: Task) -> None:
        begun = self._clock()
        try:
            if task.outgrows(self._model.facts.switch):
                self._send(wire.Progress(task.job, anew=True))
                task.begin_anew()
                self._renew(task.slot, task.slot.capacity, self._model.cache, long=True)
            if task.remaining:
                computed = task.prefill(self._pace.size(alone=len(self._running) == 1))
                prefilled = self._clock()
                self._pace.saw(computed, prefilled - begun)
                if task.completion:
                    task.decode_s += prefilled - begun
                else:
                    task.prefill_s += prefilled - begun
                self._send(wire.Progress(task.job))
                if task.remaining:
                    return
                begun = prefilled
            # After the last slice the scores of the first token are there: choosing it costs no call.
            text, done = task.decode()
        except NATIVE as error:
            self._release(task, drop=True)
            self._fail(task.job, error)
            return
        task.unsent += text
        now = self._clock()
        task.decode_s += now - begun
        if task.unsent and (done or now - task.sent_at >= _GATHER_S):
            self._send(wire.Text(task.job, task.completion, task.unsent.encode("utf-8", "replace")))
            task.unsent, task.sent_at, self._said_at = "", now, now
        elif now - self._said_at >= _ALIVE_S:
            # What could become a stop string is held back, and some tokens have no text: of these there may be many.
            self._send(wire.Progress(task.job))
            self._said_at = now
        if done:
            if task.look:
                self._looks.add(task.look)
            self._release(task)
            self._end(replace(done, prefill_s=task.prefill_s, decode_s=task.decode_s))

    def _admit(self, submit: wire.Submit) -> None:
        self._count += 1
        begun = self._clock()
        try:
            task = self._judged(submit)
        except JobError as error:
            self._refuse(submit.job, error)
        except NATIVE as error:
            self._fail(submit.job, error)
        else:
            if task is None:
                self._end(wire.Similar(submit.job))
                return
            self._running.append(task)
            task.prefill_s = self._clock() - begun
            whole = self._model.whole_prompts
            self._send(wire.Started(task.job, task.prompt, len(task.slot.tokens), task.image, one_call=whole))

    def _judged(self, submit: wire.Submit) -> Task | None:
        """Make a task of the job, or None if its frame shows nothing new.

        The pictures are decoded and prepared here, so that a bad one is a refusal: nothing was started. It holds the
        other jobs up for as long as a slice of a prompt does (8 ms for 1920 x 1080 at low detail, 60 at high), and the
        window bounds how many pictures there are.
        """
        pictures = [Picture(file, most) for file, most in submit.files]
        prompt = self._model.prompt(submit.conversation, [picture.tokens for picture in pictures])
        image = sum(picture.tokens for picture in pictures)
        context = self._model.facts.context
        answer = limits.answer_tokens(len(prompt), submit.max_tokens, self._default_max_tokens, context, image)
        if pictures:
            self._room(len(prompt) + answer, limits.picture_bytes(pictures))
        look, prepared = None, []
        for picture in pictures:
            decoded = picture.decode()
            if submit.camera is not None:
                look = Look(submit.camera, hash(submit.conversation), perceptual_hash(decoded))
                if self._looks.similar(look, submit.similar_bits):
                    return None
            prepared.append(cut(decoded, picture.resized))
        return self._placed(submit, prompt, prepared, answer, look)

    def _placed(
        self, submit: wire.Submit, prompt: list[int], pictures: list[Crops], answer: int, look: Look | None
    ) -> Task:
        """Give the job a slot with a cache. Whatever is raised, every slot is as free as it was."""
        facts, whole = self._model.facts, self._model.whole_prompts
        need = len(prompt) + answer
        drawn = options(submit, facts)
        # A schema is part of a cache, and so is the choice of tokens where the library makes it: it cannot be changed
        # for another when the answer outgrows its rotary factors.
        chosen = submit.schema is not None or whole
        long = facts.long(need if chosen else len(prompt))
        # Of such a cache, or one that cannot be rewound, no other job can use anything, before or afterwards.
        alone = chosen or facts.vision
        if alone:
            slot, keep = min(self._free, key=lambda slot: len(slot.tokens)), None
        else:
            exact = submit.seed is not None
            index, keep = choose(prompt, need, self._free, exact=exact, long=long, count=self._count)
            slot = self._free[index]
        if keep is None or slot.cache is None:
            self._drop(slot)  # so that its memory counts as room
            own = partial(self._model.own_cache, schema=submit.schema, options=drawn, seed=submit.seed)
            self._renew(slot, self._room(need), own if chosen else self._model.cache, long=long)
        else:
            try:
                slot.cache.rewind(keep)
            except NATIVE:
                self._drop(slot)  # nobody knows what it holds now
                raise
        slot.used = self._count
        task = Task(
            submit,
            prompt,
            pictures,
            answer_tokens=answer,
            slot=slot,
            kept=keep or 0,
            words=self._model.words(),
            sampler=None if drawn is None or chosen else Sampler(drawn, submit.seed),
            end=facts.end,
            alone=alone,
            whole=whole,
            look=look,
        )
        self._free.remove(slot)
        return task

    def _renew(self, slot: Slot, capacity: int, make: Callable[..., "Cache"], *, long: bool) -> None:
        """Give a slot an empty cache. Where only the library sees what is free, idle ones make way when it fails."""
        self._drop(slot)
        idle = self._idle
        while slot.cache is None:
            try:
                slot.cache = make(capacity, long=long)
            except NATIVE:
                if not idle:
                    raise
                self._drop(idle.pop(0))
        slot.capacity, slot.long = capacity, long

    def _room(self, need: int, image: int = 0) -> int:
        """Return the capacity of a new cache for ``need`` tokens, idle caches having made way for it.

        Args:
            need: how many tokens it must have room for.
            image: memory that is needed besides, for pictures, in bytes.

        Raises:
            JobError: there is no memory for it.

        """
        facts = self._model.facts
        # Nothing will follow in a cache that cannot be rewound, and no longer prompt where other rotary factors begin.
        end = facts.context if facts.switch is None or facts.long(need) else min(facts.switch, facts.context)
        roomy = need if facts.vision or self._model.whole_prompts else limits.capacity(need, end)
        if not self._token_bytes and not image:
            return roomy
        idle = self._idle
        while True:
            available = self._available()
            for capacity in (roomy, need):
                if capacity * self._token_bytes + image <= available - limits.RESERVE:
                    return capacity
            if not idle:
                raise limits.out_of_memory(need * self._token_bytes + image, available, image)
            self._drop(idle.pop(0))

    def _release(self, task: Task, *, drop: bool = False) -> None:
        self._running.remove(task)
        with suppress(ValueError):  # its call of this turn has been made
            self._turn.remove(task)
        self._free.append(task.slot)
        if drop or task.alone:
            self._drop(task.slot)

    def _drop(self, slot: Slot) -> None:
        """Give a slot's cache back to the system."""
        if slot.cache is not None:
            slot.cache = None
            # glibc keeps what was freed below its threshold, which grows up to 32 MB, larger than most tensors.
            ctypes.CDLL(None).malloc_trim(0)
        slot.capacity, slot.exact, slot.tokens = 0, 0, []

    def _fail(self, job: int, error: Exception) -> None:
        """End a job on which the library failed, or the worker, if the library would fail on every other job too."""
        told = translated(error)
        error.__traceback__ = None  # its frames have the cache of the job
        if not self._model.works():
            for slot in self._idle:  # which may have left no room on the device for the trial
                self._drop(slot)
            if not self._model.works():
                raise DeviceLost from error
        self._refuse(job, told)

    def _refuse(self, job: int, error: JobError) -> None:
        self._end(wire.Refused(job, str(error.code), error.message))

    def _end(self, message: wire.Ended) -> None:
        """Say the last word on a job. Its cache is idle by now, or given back."""
        self._send(replace(message, held=self._held))
