"""Paths on the command line. `~` is the user's home folder. A file that cannot be written is reported before
the command begins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distbp.core.errors import Fault, JobError
from distbp.core.storage import user_path

if TYPE_CHECKING:
    from distbp.job import TrainingJob


class UserPath(click.Path):
    """A path with `~` expanded. folder: an existing file is refused."""

    def __init__(self, *, folder: bool = False) -> None:
        super().__init__(path_type=Path, file_okay=not folder)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":  # for example from an unset shell variable; as a path it would mean this folder
            self.fail("it is empty; name a path", param, ctx)
        return super().convert(user_path(value), param, ctx)


class NewFile(UserPath):
    """A file to write, in an existing folder, with one of `suffixes` in upper or lower case."""

    def __init__(self, *suffixes: str) -> None:
        super().__init__()
        self._suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path: Path = super().convert(value, param, ctx)
        if path.suffix.lower() not in self._suffixes:
            self.fail(f"{path} must end in {' or '.join(self._suffixes)}", param, ctx)
        if path.is_dir():
            self.fail(f"{path} is a folder; name a file in it", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"{path}: {path.parent} is not a folder; make it, or choose another", param, ctx)
        if not os.access(path.parent, os.W_OK):
            self.fail(f"{path}: this user may not write into {path.parent}", param, ctx)
        return path


def job_at(path: Path, sets: Sequence[str] = (), *, needs_data: bool = True) -> TrainingJob:
    """The job in a file. `sets`: fields to replace, as NAME=VALUE. `needs_data`: the job must name its
    training set. Raises JobError."""
    from distbp.data.columns.files import looks_like_table
    from distbp.job import TrainingJob
    from distbp.job.overrides import overridden
    from distbp.job.text import read_file

    if looks_like_table(path) and path.exists():
        text = (
            f"is a table, no job; write one: distbp data describe {path} --target NAME --write-job job.yaml"
        )
        raise JobError([Fault("", text)], str(path))
    job = TrainingJob.from_mapping(overridden(read_file(path), sets, str(path)), str(path))
    if needs_data and job.data.train is None:
        raise JobError([Fault("data.train", "is required on the command line (the training set)")], str(path))
    return job
