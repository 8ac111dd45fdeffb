"""From the cells of a column, text or typed, to numbers and levels. Every file, frame and row goes through
here, so that the same rows give the same numbers whatever held them.

Arrays are pyarrow's, one piece of a column. Missing cells are null in them, and NaN in what is returned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.data.columns.arrow import arrow, is_text

MISSING = ("", "?", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None")  # unless the job says
TRUE, FALSE = ("true", "yes", "t", "y"), ("false", "no", "f", "n")
WHOLE = r"^[+-]?(0|[1-9][0-9]*)$"
# No zeros in front: "00123" is a postcode.
NUMBER = r"^[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?([iI]nf|INF|[iI]nfinity)$"
_ZONE = r" ?(Z|UTC|[+-][01][0-9](:?[0-5][0-9])?)"
DATE = (
    r"^[0-9]{4}[-/](0[1-9]|1[0-2])([-/](0[1-9]|[12][0-9]|3[01]))?$"
    r"|^[0-9]{4}[-/](0[1-9]|1[0-2])[-/](0[1-9]|[12][0-9]|3[01])"
    rf"[ T]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{{1,9}})?)?({_ZONE})?$"
)


@dataclass(frozen=True, eq=False)
class Coded:
    """Text that came with a dictionary. `texts`: the entries, cleaned, null where that means a missing cell;
    not all need be used. `codes`: (n,) whole numbers, of entries; -1 where the cell is null."""

    dictionary: Any
    texts: Any
    codes: Array

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def counts(self) -> Array:
        """How often each entry is there; 0 where it means a missing cell."""
        found = np.bincount(self.codes + 1, minlength=len(self.texts) + 1)[1:]
        found[missing_cells(self.texts)] = 0
        return found

    def plain(self) -> Any:
        """The text itself."""
        return self.texts.take(arrow().pa.array(self.codes, mask=self.codes < 0))

    def map(self, values: Array, missing: Any) -> Array:
        """What stands in `values` for the entry of each cell, or `missing`."""
        return np.append(values, np.array([missing], values.dtype))[self.codes]


def cleaned(cells: Any, missing: Sequence[str], before: Any = None) -> Any:
    """Text without blanks around it, null where it is one of `missing`; of other types numbers and dates,
    null where `missing` has the text of that number or date. `Coded` where the text came with a dictionary.
    before: what this gave for the piece before, whose dictionary may be the same."""
    pa, compute = arrow().pa, arrow().compute
    if pa.types.is_dictionary(cells.type) and is_text(cells.type.value_type):
        known = isinstance(before, Coded) and cells.dictionary.equals(before.dictionary)
        texts = before.texts if known else cleaned(cells.dictionary, missing)
        dictionary = before.dictionary if known else cells.dictionary
        return Coded(dictionary, texts, _primitive(cells.indices.cast(pa.int32()), -1))
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if pa.types.is_time(cells.type):  # without a day it is not a date, as in text
        cells = compute.replace_substring_regex(cells.cast(pa.string()), r"\.0+$", "")
    if not is_text(cells.type):
        return _without(cells, missing)
    text = compute.utf8_trim_whitespace(cells.cast(pa.string()))
    gone = compute.is_in(text, value_set=pa.array(list(missing), pa.string()))
    return _without(compute.if_else(gone, pa.scalar(None, pa.string()), text), missing)


def means_values(missing: Sequence[str]) -> bool:
    """Whether a missing cell may be a number or a date, as -999, so that typed columns may hold it."""
    return any(re.match(NUMBER, text) or re.match(DATE, text) for text in missing)


def _without(cells: Any, missing: Sequence[str]) -> Any:
    """Cells, null where they are a number or a date that `missing` has, however it is written."""
    pa, types = arrow().pa, arrow().pa.types
    if not means_values(missing):
        return cells
    kind, text = cells.type, is_text(cells.type)
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    date = types.is_timestamp(kind) or types.is_date(kind)
    for reads, pattern, read in ((number, NUMBER, as_numbers), (date, DATE, as_dates)):
        told = [one for one in missing if re.match(pattern, one)] if reads or text else []
        if told:
            gone = np.isin(read(cells)[0], read(pa.array(told))[0])
            cells = arrow().compute.if_else(pa.array(gone), pa.scalar(None, kind), cells)
    return cells


def matches(cells: Any, pattern: str) -> bool:
    """Whether all text that is there fits the pattern."""
    found = arrow().compute.match_substring_regex(cells, pattern)
    return arrow().compute.all(found).as_py() is not False


def comma_hint(cell: object) -> str:
    """What to say of a cell that is not a number, where it looks like one with a decimal comma. In 1,500 it
    may stand between thousands."""
    comma = isinstance(cell, str) and re.fullmatch(r"[+-]?[0-9.]+,([0-9]{1,2}|[0-9]{4,})", cell.strip())
    return "; for a decimal comma in CSV say decimal: ','" if comma else ""


def missing_cells(cells: Any) -> Array:
    """(n,) bool: null, or NaN."""
    return np.asarray(arrow().compute.is_null(cells, nan_is_null=True).to_numpy(zero_copy_only=False))


def as_numbers(cells: Any) -> tuple[Array, Array | None]:
    """(n,) float64, and which cells hold something else than a number; None where all are right."""
    pa, compute = arrow().pa, arrow().compute
    if pa.types.is_decimal(cells.type):  # Arrow's cast to float64 may miss the nearest one
        cells = cells.cast(pa.string())
    kind = cells.type
    if is_text(kind):
        numbers = numbers_of(cells)
        if numbers is not None:
            return _floats(numbers), None
        good = compute.match_substring_regex(cells, NUMBER)
        cells = compute.if_else(good, cells, pa.scalar(None, pa.string()))
        try:
            return _floats(_cast(cells)), _not(good)
        except pa.ArrowInvalid:  # more digits or a larger exponent than it takes
            return np.array([np.nan if t is None else float(t) for t in cells.to_pylist()]), _not(good)
    if pa.types.is_boolean(kind):
        return _floats(cells.cast(pa.int8())), None
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _floats(cells), None
    return _none_of(cells)


def numbers_of(text: Any) -> Any:
    """Text as float64 where every cell that is there is a number (see NUMBER), else None. This is ten times
    as fast as to match the pattern, and a test compares both."""
    pa, compute = arrow().pa, arrow().compute
    if compute.any(compute.match_substring_regex(text, r"^[+-]?0[0-9]")).as_py():
        return None
    try:
        numbers = _cast(text)
    except pa.ArrowInvalid:
        return None
    return None if compute.any(compute.is_nan(numbers)).as_py() else numbers


def _cast(text: Any) -> Any:
    compute = arrow().compute
    if compute.any(compute.starts_with(text, "+")).as_py():
        text = compute.replace_substring_regex(text, r"^\+", "")
    return text.cast(arrow().pa.float64())


def as_dates(cells: Any) -> tuple[Array, Array | None]:
    """(n,) float64, seconds since 1970 in UTC, and which cells are no dates."""
    pa, compute = arrow().pa, arrow().compute
    kind, bad = cells.type, None
    if is_text(kind):
        good = compute.match_substring_regex(cells, DATE)
        text = compute.if_else(good, cells, pa.scalar(None, pa.string()))
        text, kind = _iso(text)
        try:
            cells = text.cast(kind)
        except pa.ArrowInvalid:  # a 30th of February
            cells = pa.array([_date(one) for one in text.to_pylist()], kind)
        bad = _not(compute.and_(good, compute.is_valid(cells)))
    elif not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return _none_of(cells)
    if pa.types.is_date32(cells.type):  # days
        return _floats(cells.cast(pa.int32())) * 86_400.0, bad
    micros = cells.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
    return _floats(micros) / 1e6, bad


def _iso(text: Any) -> tuple[Any, Any]:
    """Text that fits `DATE` in the one form that Arrow reads, and the type to read it as: microseconds,
    without a time zone where no cell has one but UTC, else all in UTC."""
    pa, replaced = arrow().pa, arrow().compute.replace_substring_regex
    text = replaced(arrow().compute.replace_substring(text, "/", "-"), " ?(Z|UTC)$", "")
    text = replaced(text, r"^([0-9]{4}-[0-9]{2})$", r"\1-01")
    text = replaced(text, r"(\.[0-9]{6})[0-9]+", r"\1")
    zoned = arrow().compute.match_substring_regex(text, r":.*[+-]")
    if not arrow().compute.any(zoned).as_py():
        return text, pa.timestamp("us")
    plain = replaced(replaced(text, r"^(.{10})$", r"\1 00:00"), "$", "Z")
    return arrow().compute.if_else(zoned, replaced(text, " ([+-])", r"\1"), plain), pa.timestamp("us", "UTC")


def as_booleans(cells: Any) -> tuple[Array, Array | None]:
    """(n,) float64, 1 for yes, and which cells are neither yes nor no."""
    pa, compute = arrow().pa, arrow().compute
    if is_text(cells.type):
        text = compute.utf8_lower(cells)
        yes = compute.is_in(text, value_set=pa.array([*TRUE, "1"]))
        known = compute.or_(yes, compute.is_in(text, value_set=pa.array([*FALSE, "0"])))
        known = compute.if_else(compute.is_valid(cells), known, pa.scalar(None, pa.bool_()))
        found = compute.if_else(known, yes, pa.scalar(None, pa.bool_()))
        return _floats(found.cast(pa.int8())), _not(known)
    numbers, bad = as_numbers(cells)
    strange = ~np.isnan(numbers) & (numbers != 0) & (numbers != 1)
    return numbers, strange if strange.any() else bad


def truth(text: str) -> bool | None:
    """What a text says as yes or no; None: it is neither."""
    text = text.lower()
    return True if text in (*TRUE, "1") else False if text in (*FALSE, "0") else None


def truths(texts: Sequence[Any]) -> dict[bool | None, str]:
    """The text for yes and for no, where these two words, in any of their spellings, are all that there is;
    else none. So a boolean of a typed file is told to be the True of a CSV."""
    found: dict[bool | None, str] = {truth(text): text for text in texts if text not in ("0", "1")}
    found.pop(None, None)
    return found if len(found) == len(texts) else {}


def as_levels(cells: Any, numeric: bool) -> tuple[Any, Array | None]:
    """The cells as text (null: missing), and which cells are bad. `numeric`: they are numbers, whose text is
    the shortest: 3 for 3.0."""
    pa, compute = arrow().pa, arrow().compute
    if pa.types.is_boolean(cells.type):
        return cells.cast(pa.string()), None
    if numeric or not is_text(cells.type):
        if pa.types.is_nested(cells.type) or pa.types.is_binary(cells.type):
            return compute.cast(pa.nulls(len(cells)), pa.string()), _none_of(cells)[1]
        if pa.types.is_temporal(cells.type):  # a day has no time, as in text
            return compute.replace_substring_regex(
                cells.cast(pa.string()), r"( 00:00:00)?(\.0+)?Z?$", ""
            ), None
        numbers, bad = as_numbers(cells)
        distinct, places = np.unique(numbers, return_inverse=True)
        return pa.array([number_text(n) for n in distinct.tolist()], pa.string()).take(pa.array(places)), bad
    return cells, None


def number_text(number: float) -> str | None:
    """The shortest text of a number: 3 for 3.0; None for NaN."""
    if number != number:
        return None
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _date(text: str | None) -> Any:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None


def _floats(cells: Any) -> Array:
    """Of numbers, float64, NaN where they are null. It may be the memory of the cells."""
    return _primitive(cells.cast(arrow().pa.float64(), safe=False), np.nan)


def _primitive(cells: Any, missing: float) -> Array:
    """Of numbers of any fixed width; `missing` where they are null. Without a null it is the memory of the
    cells. (`to_numpy` loads pandas.)"""
    valid, data = cells.buffers()
    start, stop = cells.offset, cells.offset + len(cells)
    if data is None or cells.null_count == len(cells):
        return np.full(len(cells), missing, cells.type.to_pandas_dtype())
    values = np.frombuffer(data, cells.type.to_pandas_dtype())[start:stop]
    if not cells.null_count:
        return values
    bits = np.unpackbits(np.frombuffer(valid, np.uint8), count=stop, bitorder="little")[start:]
    found = values.copy()
    np.copyto(found, missing, where=bits == 0)
    return found


def _not(good: Any) -> Array | None:
    """Where `good` is false (not null); None where it is nowhere."""
    compute = arrow().compute
    bad = compute.invert(compute.fill_null(good, True))
    return np.asarray(bad.to_numpy(zero_copy_only=False)) if compute.any(bad).as_py() else None


def _none_of(cells: Any) -> tuple[Array, Array | None]:
    bad = ~missing_cells(cells)
    return np.full(len(cells), np.nan), bad if bad.any() else None
