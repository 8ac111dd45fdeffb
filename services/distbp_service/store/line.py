"""The queue as it stands, and the reason that a job in it has not started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from distbp_service.policy import Head, Room, Usage, hindrance, place, turns
from distbp_service.states import ACTIVE
from distbp_service.store.database import Database
from distbp_service.store.records import Job
from distbp_service.store.schema import jobs, projects, room

_PLACES = 10_000  # the first jobs of a project's queue, whose places are counted
_NAMED = 10  # the most projects in a message or an answer


@dataclass(frozen=True)
class Waiting:
    """The reason that a job has not started. `why`: slots (too few are free), turn (others come first),
    project_slots, project_jobs (the project has as many as it may), never (it needs more slots than a job can
    ever have), retry (after a failure, at `retry_at`), starting (it is next), dispatcher (none has run yet).
    `needed`: slots of the job. `free`, `slots`: slots of the service; None: not known. `in_use`: the projects
    that hold slots, the largest first. `place`: in line, from 1; None: not known."""

    why: str
    message: str
    needed: int
    free: int | None
    slots: int | None
    in_use: tuple[tuple[str, Usage], ...]
    place: int | None
    retry_at: float | None = None


def read_room(conn: Connection) -> Room | None:
    """The room that the dispatcher has announced; None if none has run yet."""
    row = conn.execute(select(room.c.slots, room.c.project_slots, room.c.project_jobs)).one_or_none()
    return None if row is None else Room(*row)


def usage(conn: Connection) -> dict[str, Usage]:
    """The usage of every project, by name, including projects that hold no slots."""
    held = (
        select(jobs.c.project, func.sum(jobs.c.slots_held), func.count())
        .where(jobs.c.state.in_(ACTIVE))
        .group_by(jobs.c.project)
    )
    found = {name: (int(slots), int(number)) for name, slots, number in conn.execute(held)}
    served = conn.execute(select(projects.c.name, projects.c.served_at))
    return {name: Usage(*found.get(name, (0, 0)), at or 0.0) for name, at in served}


def heads(conn: Connection, used: Mapping[str, Usage], widest: int) -> list[Head]:
    """The first job of every project's queue that needs at most `widest` slots: one index lookup each."""
    inner = jobs.alias()
    first = (
        select(inner.c.id)
        .where(inner.c.state == "queued", inner.c.project == projects.c.name, inner.c.slots <= widest)
        .order_by(inner.c.priority.desc(), inner.c.queued_at, inner.c.id)
        .limit(1)
        .correlate(projects)
        .scalar_subquery()
    )
    columns = (jobs.c.id, jobs.c.project, jobs.c.priority, jobs.c.queued_at, jobs.c.slots, jobs.c.slots_most)
    query = select(*columns).select_from(projects).join(jobs, jobs.c.id == first)
    return [Head(*row, used.get(row.project, Usage())) for row in conn.execute(query)]


class Line:
    """A snapshot of the queue, for the jobs of one project."""

    def __init__(self, db: Database, project: str) -> None:
        with db.read() as conn:
            self._room = read_room(conn)
            self._used = usage(conn)
            widest = 0 if self._room is None else self._room.widest
            self._turns = [] if self._room is None else turns(heads(conn, self._used, widest), self._room)
            query = (
                select(jobs.c.project, func.count())
                .where(jobs.c.state == "queued", jobs.c.slots <= widest)
                .group_by(jobs.c.project)
            )
            self._waiting = {row[0]: int(row[1]) for row in conn.execute(query)}
            mine = (
                select(jobs.c.id)
                .where(jobs.c.state == "queued", jobs.c.project == project, jobs.c.slots <= widest)
                .order_by(jobs.c.priority.desc(), jobs.c.queued_at, jobs.c.id)
                .limit(_PLACES)
            )
            self._places = {job: place for place, job in enumerate(conn.execute(mine).scalars(), 1)}
        self._project = project

    def why(self, job: Job) -> Waiting | None:
        """The reason that a job of the project waits; None if it does not wait."""
        if job.state not in ("queued", "recovering"):
            return None
        here, slots, free = self._place(job), None, None
        if self._room is not None:
            slots = self._room.slots
            free = max(0, slots - sum(one.slots for one in self._used.values()))
        why, text = self._reason(job, here, free or 0)
        if job.state == "recovering":
            why, text = "retry", job.reason or "it is tried again after a failure"
        elif here is not None and why != "never":
            text += f"; place {here:,} in line"
        return Waiting(why, text, job.slots, free, slots, self._largest(), here, job.not_before)

    def _place(self, job: Job) -> int | None:
        mine = self._places.get(job.id)
        if mine is None:
            return None
        order = [head.project for head in self._turns]
        at = order.index(self._project) if self._project in order else len(order)
        others = {name: n for name, n in self._waiting.items() if name != self._project}
        return place(mine, {name: name in order[:at] for name in others}, others)

    def _reason(self, job: Job, here: int | None, free: int) -> tuple[str, str]:
        room, mine = self._room, self._used.get(job.project, Usage())
        if room is None:
            return "dispatcher", "no dispatcher has run yet; it starts what waits here"
        needs = f"needs {_slots(job.slots)} of {room.slots:,}"
        head = Head(job.id, job.project, job.priority, job.queued_at, job.slots, job.slots_most, mine)
        match hindrance(head, room):
            case "never":
                whose = "the service has" if room.widest == room.slots else "a project may have"
                text = (
                    f"needs {_slots(job.slots)}, and {whose} {room.widest:,}: it cannot start; scale it down"
                )
                return "never", f"{text}, or cancel it"
            case "project_jobs":
                return "project_jobs", f"the project runs {mine.jobs:,} jobs, as many as it may at a time"
            case "project_slots":
                held = f"the project holds {mine.slots:,} of the {room.project_slots:,} that it may have"
                return "project_slots", f"{needs}, and {held}"
        if job.slots > free:
            what = "none is free" if free == 0 else f"{free:,} {'is' if free == 1 else 'are'} free"
            return "slots", f"{needs}, and {what} (in use: {self._named()})"
        if here == 1:
            return "starting", f"{needs}, and {free:,} {'is' if free == 1 else 'are'} free: it is next"
        return "turn", f"{needs}, and {free:,} {'is' if free == 1 else 'are'} free, but others come first"

    def _largest(self) -> tuple[tuple[str, Usage], ...]:
        holding = [(name, one) for name, one in self._used.items() if one.slots]
        return tuple(sorted(holding, key=lambda item: (-item[1].slots, item[0]))[:_NAMED])

    def _named(self) -> str:
        return ", ".join(f"{name} {one.slots:,}" for name, one in self._largest())


def reasons(db: Database, project: str, found: Sequence[Job]) -> dict[str, Waiting]:
    """The reasons that jobs of the project wait, by id. Reads the queue once for all of them."""
    if not any(job.state in ("queued", "recovering") for job in found):
        return {}
    line = Line(db, project)
    return {job.id: why for job in found if (why := line.why(job)) is not None}


def _slots(number: int) -> str:
    return "1 slot" if number == 1 else f"{number:,} slots"
