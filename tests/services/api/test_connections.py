"""How many connections there may be, and which of them are closed; with transports that only remember."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from distbp_service.api import Limits
from distbp_service.api.connections import Connections

LIMITS = Limits(head_s=10, unread_s=30)


@dataclass
class Transport:
    address: str
    aborted: bool = False

    def get_extra_info(self, name: str) -> tuple[str, int]:
        assert name == "peername"
        return self.address, 1

    def abort(self) -> None:
        self.aborted = True


@dataclass
class Inner:
    """What uvicorn's protocol shows of itself."""

    cycle: Any = None
    told: list[str] = field(default_factory=list)

    def connection_made(self, transport: Transport) -> None:
        self.told.append("made")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


def open_one(connections: Connections, address: str = "a") -> tuple[Any, Inner, Transport]:
    made = connections.protocol()
    transport = Transport(address)
    made.connection_made(transport)
    return made, made._inner, transport


def run(test: Any) -> None:
    async def main() -> None:
        test()

    asyncio.run(main())


def busy() -> Any:
    return SimpleNamespace(response_complete=False)


def test_the_oldest_that_waits_makes_room() -> None:
    def test() -> None:
        connections = Connections(Inner, 8, LIMITS)  # six of an address
        mine = [open_one(connections) for _ in range(6)]
        mine[0][1].cycle = busy()
        new = open_one(connections)
        assert [transport.aborted for *_, transport in mine] == [False, True, *[False] * 4]
        others = [open_one(connections, "b") for _ in range(2)]
        assert connections.count == 8
        third = open_one(connections, "c")  # none is left: of the address that has the most
        assert [transport.aborted for *_, transport in mine] == [False, True, True, *[False] * 3]
        assert not any(one[2].aborted for one in (new, *others, third))

    run(test)


def test_where_all_work_a_new_one_is_refused() -> None:
    def test() -> None:
        connections = Connections(Inner, 4, LIMITS)
        mine = [open_one(connections) for _ in range(3)]
        for _, inner, _ in mine:
            inner.cycle = busy()
        assert open_one(connections)[2].aborted
        assert not open_one(connections, "b")[2].aborted
        assert not any(transport.aborted for *_, transport in mine)
        mine[0][1].cycle.response_complete = True
        assert not open_one(connections)[2].aborted
        assert mine[0][2].aborted

    run(test)


def test_a_request_must_come_and_an_answer_be_read() -> None:
    def test() -> None:
        connections = Connections(Inner, 4, LIMITS)
        one, inner, _ = open_one(connections)
        now = asyncio.get_running_loop().time()
        assert not one.overdue(now + 9, 10, 30) and one.overdue(now + 11, 10, 30)
        inner.cycle = busy()
        assert not one.overdue(now + 1000, 10, 30)  # that is for the route to decide
        inner.cycle = SimpleNamespace(response_complete=True)  # another request, since we looked
        assert not one.overdue(now + 1020, 10, 30) and one.overdue(now + 1031, 10, 30)
        inner.cycle = busy()
        one.pause_writing()
        assert not one.overdue(now + 29, 10, 30) and one.overdue(now + 31, 10, 30)
        one.resume_writing()
        assert not one.overdue(now + 31, 10, 30)
        assert inner.told == ["made", "pause", "resume"]

    run(test)
