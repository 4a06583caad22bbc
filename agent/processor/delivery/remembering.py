"""The sink of a trigger with ids and without a journal: handled, then remembered, then acknowledged.

Flow: trigger -> durable sink -> [remembering sink] -> pool; success -> the id on the disk -> `done`.
Promise: once `done` has got a success, the same id never runs the handler again within the window.
"""

from __future__ import annotations

import time
from functools import partial

from agent.model.event import Event, Outcome
from agent.model.sink import Done
from agent.processor.delivery.codec import encode_reply
from agent.processor.delivery.durable import DurableSink
from agent.processor.delivery.ids import NO_ANSWER
from agent.processor.job import Job


class MarkedJob(Job):
    """An event with an id that nobody else may run meanwhile."""

    __slots__ = ("mark",)
    mark: bytes


class RememberingSink(DurableSink):
    """Implements agent.model.sink.Sink."""

    def _accept(self, event: Event, done: Done, mark: bytes | None, patient: bool) -> None:
        kind = Job if mark is None else MarkedJob
        job = kind(event, done, self, time.monotonic_ns(), patient)
        if isinstance(job, MarkedJob) and mark is not None:
            job.mark = mark
        job.retry = patient
        if patient and self._line is not None:
            self._line.enter(job)
        else:
            self._submit(job)

    def _end(self, job: Job, outcome: Outcome) -> None:
        if not isinstance(job, MarkedJob):
            super()._end(job, outcome)
        elif outcome.ok:
            self._remember(job, outcome)
        else:
            super()._end(job, outcome)
            self._tell_waiters(job.mark, outcome)

    def _remember(self, job: MarkedJob, outcome: Outcome) -> None:
        """The id goes to the disk before the source hears of the success."""
        assert self._ids is not None
        group = self._group()
        answer = None
        if not job.patient:
            record = encode_reply(outcome)
            answer = record if len(record) <= self._spec.ids.max_answer_bytes else None
        self._ids.finish(job.mark, group, self._delivery.commits.at, answer)
        seq = NO_ANSWER if answer is None else self._ids.last_seq
        group.then.append(partial(self._remembered, job, outcome, seq))

    def _remembered(self, job: MarkedJob, outcome: Outcome, seq: int, written: bool) -> None:
        # Not written: the work is done all the same, and saying otherwise would have it done again.
        assert self._ids is not None
        self._ids.know(job.mark, seq)
        super()._end(job, outcome)
        self._tell_waiters(job.mark, outcome)

    def _bury(self, job: Job, outcome: Outcome) -> None:
        """What is among the dead letters must not come a second time either."""
        super()._bury(job, outcome)
        if isinstance(job, MarkedJob) and self._ids is not None:
            group = self._group()
            self._ids.finish(job.mark, group, self._delivery.commits.at)
            group.then.append(partial(self._known, job.mark))
