"""Turns the cells of a column, text or typed, into numbers and levels. Every file, frame and row goes
through these functions, so the same rows give the same numbers from every source.

Cells are an Arrow array, one piece of a column. A missing cell is null there, and NaN in returned numbers.
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

MISSING = ("", "?", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None")  # by default
TRUE, FALSE = ("true", "yes", "t", "y"), ("false", "no", "f", "n")
WHOLE = r"^[+-]?(0|[1-9][0-9]*)$"
# No leading zeros: "00123" is a postcode, not a number.
NUMBER = r"^[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?([iI]nf|INF|[iI]nfinity)$"
_ZONE = r" ?(Z|UTC|[+-][01][0-9](:?[0-5][0-9])?)"
DATE = (
    r"^[0-9]{4}[-/](0[1-9]|1[0-2])([-/](0[1-9]|[12][0-9]|3[01]))?$"
    r"|^[0-9]{4}[-/](0[1-9]|1[0-2])[-/](0[1-9]|[12][0-9]|3[01])"
    rf"[ T]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{{1,9}})?)?({_ZONE})?$"
)


@dataclass(frozen=True, eq=False)
class Coded:
    """Dictionary-encoded text. `texts`: the cleaned entries, null for a missing cell; some may be unused.
    `codes`: (n,) int32, each cell's index into `texts`; -1 for a null cell."""

    dictionary: Any
    texts: Any
    codes: Array

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def counts(self) -> Array:
        """(entries,): the number of cells with each entry; 0 for an entry that means a missing cell."""
        found = np.bincount(self.codes + 1, minlength=len(self.texts) + 1)[1:]
        found[missing_cells(self.texts)] = 0
        return found

    def plain(self) -> Any:
        """The cells as a plain Arrow array of text."""
        return self.texts.take(arrow().pa.array(self.codes, mask=self.codes < 0))

    def map(self, values: Array, missing: Any) -> Array:
        """(n,): the item of `values` at each cell's code, or `missing` for a null cell."""
        return np.append(values, np.array([missing], values.dtype))[self.codes]


def cleaned(cells: Any, missing: Sequence[str], before: Any = None) -> Any:
    """Cells with every missing cell null. Text loses the blanks around it, and is missing if it is one of
    `missing`. A number or date is missing if `missing` has its text. Dictionary-encoded text becomes `Coded`.
    before: the result for the previous piece; an equal dictionary is not cleaned again."""
    pa, compute = arrow().pa, arrow().compute
    if pa.types.is_dictionary(cells.type) and is_text(cells.type.value_type):
        known = isinstance(before, Coded) and cells.dictionary.equals(before.dictionary)
        texts = before.texts if known else cleaned(cells.dictionary, missing)
        dictionary = before.dictionary if known else cells.dictionary
        return Coded(dictionary, texts, _primitive(cells.indices.cast(pa.int32()), -1))
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if pa.types.is_time(cells.type):  # a time without a day is text, not a date
        cells = compute.replace_substring_regex(cells.cast(pa.string()), r"\.0+$", "")
    if not is_text(cells.type):
        return _without(cells, missing)
    text = compute.utf8_trim_whitespace(cells.cast(pa.string()))
    gone = compute.is_in(text, value_set=pa.array(list(missing), pa.string()))
    return _without(compute.if_else(gone, pa.scalar(None, pa.string()), text), missing)


def means_values(missing: Sequence[str]) -> bool:
    """Whether a text of `missing` is a number, such as -999, or a date. Typed columns may hold it, too."""
    return any(re.match(NUMBER, text) or re.match(DATE, text) for text in missing)


def _without(cells: Any, missing: Sequence[str]) -> Any:
    """The cells, null where they equal a number or a date in `missing`. The spelling may differ."""
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
    """Whether all text that is not null matches the pattern."""
    found = arrow().compute.match_substring_regex(cells, pattern)
    return arrow().compute.all(found).as_py() is not False


def comma_hint(cell: object) -> str:
    """A hint about `decimal` if a cell looks like a number with a decimal comma, else "". The comma in 1,500
    may separate thousands, so that cell gets no hint."""
    comma = isinstance(cell, str) and re.fullmatch(r"[+-]?[0-9.]+,([0-9]{1,2}|[0-9]{4,})", cell.strip())
    return "; for a decimal comma in CSV say decimal: ','" if comma else ""


def missing_cells(cells: Any) -> Array:
    """(n,) bool: True for null and NaN."""
    return np.asarray(arrow().compute.is_null(cells, nan_is_null=True).to_numpy(zero_copy_only=False))


def as_numbers(cells: Any) -> tuple[Array, Array | None]:
    """Returns the numbers, (n,) float64, and a mask (n,) of the cells that are not numbers; None: no cell."""
    pa, compute = arrow().pa, arrow().compute
    if pa.types.is_decimal(cells.type):  # Arrow's cast may miss the nearest float64
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
        except pa.ArrowInvalid:  # more digits or a larger exponent than Arrow reads
            return np.array([np.nan if t is None else float(t) for t in cells.to_pylist()]), _not(good)
    if pa.types.is_boolean(kind):
        return _floats(cells.cast(pa.int8())), None
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _floats(cells), None
    return _none_of(cells)


def numbers_of(text: Any) -> Any:
    """Text as float64 if every cell that is not null matches `NUMBER`, else None. This is ten times as fast
    as matching the pattern; a test checks that the two agree."""
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
    """Returns seconds since 1970 in UTC, (n,) float64, and a mask (n,) of the cells that are not dates; None:
    no cell."""
    pa, compute = arrow().pa, arrow().compute
    kind, bad = cells.type, None
    if is_text(kind):
        good = compute.match_substring_regex(cells, DATE)
        text = compute.if_else(good, cells, pa.scalar(None, pa.string()))
        text, kind = _iso(text)
        try:
            cells = text.cast(kind)
        except pa.ArrowInvalid:  # such as February 30
            cells = pa.array([_date(one) for one in text.to_pylist()], kind)
        bad = _not(compute.and_(good, compute.is_valid(cells)))
    elif not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return _none_of(cells)
    if pa.types.is_date32(cells.type):  # days
        return _floats(cells.cast(pa.int32())) * 86_400.0, bad
    micros = cells.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
    return _floats(micros) / 1e6, bad


def _iso(text: Any) -> tuple[Any, Any]:
    """Rewrites text that matches `DATE` in the form that Arrow reads. Returns it with the type to cast it to:
    microseconds, in UTC if a cell has a time zone other than UTC, else without a time zone."""
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
    """Returns 1 for yes and 0 for no, (n,) float64, and a mask (n,) of the cells that are neither; None: no
    cell."""
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
    """True for a text that means yes, False for no, None for any other text."""
    text = text.lower()
    return True if text in (*TRUE, "1") else False if text in (*FALSE, "0") else None


def truths(texts: Sequence[Any]) -> dict[bool | None, str]:
    """The texts for yes and no, by their meaning, if every text means one of them and no two mean the same;
    else {}. So a boolean in a typed file matches the text True in a CSV."""
    found: dict[bool | None, str] = {truth(text): text for text in texts if text not in ("0", "1")}
    found.pop(None, None)
    return found if len(found) == len(texts) else {}


def as_levels(cells: Any, numeric: bool) -> tuple[Any, Array | None]:
    """Returns cells as Arrow text (null: missing), and a mask (n,) of bad cells; None: no cell.
    `numeric`: cells are numbers, and become their shortest text, 3 for 3.0."""
    pa, compute = arrow().pa, arrow().compute
    if pa.types.is_boolean(cells.type):
        return cells.cast(pa.string()), None
    if numeric or not is_text(cells.type):
        if pa.types.is_nested(cells.type) or pa.types.is_binary(cells.type):
            return compute.cast(pa.nulls(len(cells)), pa.string()), _none_of(cells)[1]
        if pa.types.is_temporal(cells.type):  # a date at midnight is written without a time
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
    """Numbers as float64, NaN for null. The result may share memory with the cells."""
    return _primitive(cells.cast(arrow().pa.float64(), safe=False), np.nan)


def _primitive(cells: Any, missing: float) -> Array:
    """Numbers of any fixed width as a NumPy array, `missing` for null. Without nulls, the result shares
    memory with the cells. (`to_numpy` would import pandas.)"""
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
    """A mask, (n,) bool, of the cells for which `good` is false, not null; None: no cell."""
    compute = arrow().compute
    bad = compute.invert(compute.fill_null(good, True))
    return np.asarray(bad.to_numpy(zero_copy_only=False)) if compute.any(bad).as_py() else None


def _none_of(cells: Any) -> tuple[Array, Array | None]:
    bad = ~missing_cells(cells)
    return np.full(len(cells), np.nan), bad if bad.any() else None
