from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterator

import pytest

from distbp.core import errors
from distbp.core.errors import (
    DistbpError,
    Fault,
    Interrupted,
    JobCancelledError,
    JobError,
    JobFailedError,
    NoMemoryError,
    NumericsError,
    RemoteError,
)
from distbp.engine.parameter_server import NotFiniteError


def subclasses(kind: type) -> Iterator[type]:
    for child in kind.__subclasses__():
        if child.__module__ == "distbp.core.errors":
            yield child
            yield from subclasses(child)


EXAMPLES: dict[type, DistbpError] = {  # of those with a constructor of their own
    JobError: JobError([Fault("epochs", "must be 1 or more, not 0"), Fault("", "is empty")], "job.yaml"),
    NoMemoryError: NoMemoryError([Fault("", "the job needs 3 GB of memory")], "job.yaml"),
    NumericsError: NumericsError(7, "layer 1 (dense)", "outputs", "NaN", [3, 5], "Lower the rate."),
    Interrupted: Interrupted("runs/a", 12, "SIGTERM"),
    RemoteError: RemoteError("there is no job", code="not_found", status=404, param="job"),
    JobFailedError: JobFailedError("job_1", "step 3: NaN", "numerics"),
    JobCancelledError: JobCancelledError("job_1", "cancelled by ann"),
}
every_error = pytest.mark.parametrize("kind", [DistbpError, *subclasses(DistbpError)])


def example(kind: type) -> DistbpError:
    return EXAMPLES.get(kind) or kind("what happened; what to do")


@every_error
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_every_error_pickles_with_its_attributes(kind: type, protocol: int) -> None:
    error = copy.deepcopy(example(kind))
    error.add_note("on worker 3")
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is kind
    assert str(back) == str(error)
    assert back.args == error.args
    assert vars(back) == vars(error)
    assert vars(back)["__notes__"] == ["on worker 3"]


def test_the_inner_error_of_the_server_pickles() -> None:
    back = pickle.loads(pickle.dumps(NotFiniteError(4)))
    assert (type(back), back.step) == (NotFiniteError, 4)


def drawn_tree() -> dict[str, str]:
    """name -> name of the parent, from the drawing at the top of errors.py."""
    assert errors.__doc__ is not None
    parents, above = {}, []
    for line in errors.__doc__.splitlines():
        match = re.match(r"^    ((?:│   |    )*)((?:├── |└── )?)(\w+)", line)
        if match and match[3].endswith(("Error", "Interrupted")):
            depth = len(match[1]) // 4 + bool(match[2])
            above = [*above[:depth], match[3]]
            parents[match[3]] = above[depth - 1] if depth else "Exception"
    return parents


def test_the_tree_at_the_top_matches_the_classes() -> None:
    actual = {kind.__name__: kind.__bases__[0].__name__ for kind in [DistbpError, *subclasses(DistbpError)]}
    assert drawn_tree() == actual


def test_a_job_error_lists_every_fault() -> None:
    assert str(EXAMPLES[JobError]) == (
        "job.yaml has 2 faults:\n  epochs: must be 1 or more, not 0\n  is empty"
    )
    assert str(JobError([Fault("seed", "is odd")])) == "the job has 1 fault:\n  seed: is odd"


def test_a_numerics_error_says_where_and_which_rows() -> None:
    assert str(EXAMPLES[NumericsError]) == (
        "step 7: NaN in the outputs of layer 1 (dense) for training rows 3, 5; the update was not applied."
        " Lower the rate."
    )
    assert str(NumericsError(0, "the loss", "value", "Inf")) == (
        "step 0: Inf in the value of the loss; the update was not applied."
    )


def test_an_interruption_says_how_to_go_on() -> None:
    assert str(EXAMPLES[Interrupted]) == (
        "stopped by SIGTERM after step 12; a checkpoint was written. Go on with: distbp resume runs/a"
    )
    assert str(Interrupted("r", 0)).startswith("stopped after step 0;")
    assert str(Interrupted("r", None, "SIGTERM")) == (
        "stopped by SIGTERM before training began. Go on with: distbp resume r"
    )
    assert str(Interrupted("", None, "SIGINT")) == (
        "stopped by SIGINT before training began. Nothing is lost; start it again"
    )
