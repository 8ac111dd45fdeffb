"""Messages for FastAPI's faults of fields, parameters and headers, which say what is allowed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from distbp.job.faults import nearest
from distbp_service.api import schemas

_PATTERNS: Mapping[str, str] = {
    schemas.NAME: "1 to 100 letters, digits, spaces, '.', '_' or '-', a letter or digit first",
    schemas.NAME_PART: "1 to 100 letters, digits, spaces, '.', '_' or '-'",
    schemas.NAME_OF_TOKEN: "text in one line, without control characters",
    schemas.SHA256: "64 hexadecimal digits in small letters",
    schemas.IDEMPOTENCY_KEY: "1 to 200 printable characters of ASCII, without spaces",
    schemas.ID_OF_JOB: "an id of a job, as job_01j9ze3k8xq2v5w7y0ab",
    schemas.MODEL_ID: "an id of a model, as mdl_01j9ze3k8xq2v5w7y0ab",
    schemas.DATASET_ID: "an id of a dataset: ds_ and 64 hexadecimal digits",
}
_PHRASES = (
    (re.compile(r"^(?:Input|Value|String|List|Number)[\w ]*? should (be|have|match)\b"), r"must \1"),
    (re.compile(r" after validation, not "), ", not "),
    (re.compile(r" dictionary or object to extract fields from$| dictionary$"), " JSON object"),
)


def in_words(fault: Mapping[str, Any], known: Collection[str]) -> str:
    """The message for a fault. fault: as pydantic reports it. known: the fields of the body; empty: not
    known. The message never repeats the value, which may be a secret."""
    kind, name = fault["type"], str(fault["loc"][-1])
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        near = nearest(name, known)
        said = f"is not known here; did you mean {near!r}? " if near else "is not known here; "
        return f"{said}known: {', '.join(sorted(known))}" if known else "is not known here"
    wanted = _PATTERNS.get(fault.get("ctx", {}).get("pattern", ""))
    if wanted is not None:
        return f"must be {wanted}"
    text = str(fault["msg"]).removeprefix("Value error, ")
    for phrase, better in _PHRASES:
        text = phrase.sub(better, text)
    return text
