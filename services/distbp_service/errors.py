"""What the service refuses, with the code and the HTTP status that its API answers.

ServiceError
├── NotFoundError    nothing with this id in this project (404)
├── ConflictError    the thing is not in a state that allows it, or exists otherwise (409)
├── FencedError      an older attempt spoke after a newer one had begun, or after it was ended (409)
├── OutOfOrderError  a runner's report came before one that it should follow (409)
├── BadValueError    a value that no API call may carry: a cursor, a name, a scope (422)
└── StoreError       the database is of another version, or cannot be used (500)
"""

from __future__ import annotations

from typing import ClassVar

from distbp.core.errors import DistbpError


class ServiceError(DistbpError):
    """`code` is for programs and never changes; `str(error)` is for people; `param`: the field at fault."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


class NotFoundError(ServiceError):
    code = "not_found"
    status = 404


class ConflictError(ServiceError):
    code = "conflict"
    status = 409


class FencedError(ServiceError):
    code = "fenced"
    status = 409


class OutOfOrderError(ServiceError):
    """`expected` is the number of the report that the service waits for."""

    code = "out_of_order"
    status = 409

    def __init__(self, message: str, expected: int) -> None:
        self.expected = expected
        super().__init__(message, "seq")


class BadValueError(ServiceError):
    code = "invalid"
    status = 422


class StoreError(ServiceError):
    code = "store"
    status = 500
