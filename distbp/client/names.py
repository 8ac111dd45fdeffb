"""Names that a service and its clients share: the states of jobs, the scopes of tokens, patterns of ids."""

from __future__ import annotations

from typing import Literal, get_args

State = Literal[
    "queued",
    "starting",
    "running",
    "pausing",
    "paused",
    "recovering",
    "cancelling",
    "completed",
    "failed",
    "cancelled",
]
Scope = Literal["read", "submit", "manage", "admin"]

STATES: tuple[State, ...] = get_args(State)
SCOPES: tuple[Scope, ...] = get_args(Scope)
JOB_ID = r"job_[0-9a-hjkmnp-tv-z]{20}"
MODEL_ID = r"mdl_[0-9a-hjkmnp-tv-z]{20}"
DATASET_ID = r"ds_[0-9a-f]{64}"
TOKEN_ID = r"[0-9a-f]{12}"
