"""The errors of the service, with the code and the HTTP status of the API's answer.

ServiceError
├── NotFoundError    nothing in this project has this id (404)
├── ConflictError    the state of a resource does not allow the call, or a limit is reached (409)
├── FencedError      a call from an attempt that has ended, or that a newer attempt has replaced (409)
├── OutOfOrderError  a runner's report came before an earlier report (409)
├── BadValueError    an invalid value in a call: a cursor, a name, a scope (422)
└── StoreError       the database has another version, or cannot be used (500)
"""

from __future__ import annotations

from typing import ClassVar

from distbp.core.errors import DistbpError


class ServiceError(DistbpError):
    """`code` is for programs and never changes. `str(error)` is for people. `param`: the field at fault."""

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
