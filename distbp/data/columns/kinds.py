"""The kinds of columns that a job may name in `data.columns`. `distbp.data.columns.encoders` has the encoder
of each kind, fitted to the training rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from distbp.core.options import OptionError, option, registry
from distbp.nn.layers.columns import EmbeddingCell
from distbp.nn.layers.periodic import PeriodicEmbedding

if TYPE_CHECKING:  # a job needs only the names of the kinds
    from distbp.data.columns.types import ColumnFacts

_INDICATOR = "a column that says whether the cell was missing; left out: where training rows have holes"
MOST_LEVELS = 1000  # text with more levels is a category only if the job says so
MOST_KEPT = 1_000_000  # levels with a code of their own; float32 is exact for whole numbers up to 2^24
MOST_DIMENSION = 1024
MOST_BUCKETS = 65_536
ONE_HOT_LEVELS, USUAL_DIMENSION = 9, 16  # the largest, unless the job says otherwise


@dataclass(frozen=True, kw_only=True)
class Auto:
    """By the column's type: numbers, dates, yes and no; text of few levels is a category, other text is left
    out."""

    type: Literal["auto"] = "auto"
    number: Any | None = option(
        None,
        help="what columns of numbers are, a number with its options; left out: number",
        choices="columns",
    )
    category: Any | None = option(
        None, help="the same of text of few levels; left out: category", choices="columns"
    )

    def __post_init__(self) -> None:
        for name, kind in (("number", Number), ("category", Category)):
            if not isinstance(getattr(self, name), kind | None):
                raise OptionError(name, f"must be of the kind {name}")


@dataclass(frozen=True, kw_only=True)
class Number:
    """One number, scaled by the statistics of the training rows, and the piecewise-linear code (Gorishniy
    et al., 2022) where `bins` asks for it."""

    type: Literal["number"] = "number"
    scale: Literal["standard", "min_max", "robust", "log", "quantile", "none"] = option(
        "standard",
        help="standard: mean 0, deviation 1; min_max: 0 to 1; robust: by median and quartiles (half"
        " the range where these are one); log: standard after sign(x) log(1 + |x|); quantile: rank among the"
        " training rows, mean 0, deviation 1; none: as it is",
    )
    clip: Literal["smooth"] | None = option(
        None,
        help="smooth: x / sqrt(1 + (x / 3)^2) of the scaled number x, between -3 and 3; left out: as it is",
    )
    bins: int = option(
        0, help="bins of a piecewise-linear code beside the scaled number; 0: none", ge=0, le=1024
    )
    bin_height: float | None = option(
        None,
        help="the code of a bin rises from -bin_height to bin_height; left out: from 0 to 1; without bins it"
        " changes nothing",
        gt=0,
        le=1024,
    )
    frequencies: int | None = option(
        None,
        help="cosines of a periodic embedding of the scaled number, see the layer periodic_embedding; left"
        " out: none",
        ge=1,
        le=MOST_DIMENSION,
    )
    dimension: int | None = option(
        None,
        help="numbers that it becomes with frequencies, itself among them; left out:"
        f" {PeriodicEmbedding.dimension}",
        ge=2,
        le=MOST_DIMENSION,
    )
    std: float | None = option(
        None, help=f"deviation of the first frequencies; left out: {PeriodicEmbedding.std}", gt=0
    )
    fill: Literal["mean", "median", "value"] = option("mean", help="what stands for a missing cell")
    value: float | None = option(None, help="the number for fill: value")
    indicator: bool | None = option(None, help=_INDICATOR)

    def __post_init__(self) -> None:
        if (self.fill == "value") != (self.value is not None):
            raise OptionError("value", "goes with fill: value; give both or neither")
        for name in ("dimension", "std"):
            if self.frequencies is None and getattr(self, name) is not None:
                raise OptionError(name, "is of a periodic embedding; give frequencies too, or leave it out")


@dataclass(frozen=True, kw_only=True)
class Category:
    """A code for each level that is common enough; one more, which missing, rare and unseen levels share. One
    hot it is a column of 0 and 1 for each level, and one for the shared code where training rows have it, or
    the indicator is asked for. An embedding is a vector for each code, which is trained."""

    type: Literal["category"] = "category"
    encode: Literal["one_hot", "embedding", "hash"] | None = option(
        None,
        help="one_hot: a column for each level; embedding: a trained vector for each; hash: levels share"
        f" `buckets` codes by their CRC-32; left out: one_hot up to {ONE_HOT_LEVELS} levels, embedding above",
    )
    dimension: int | None = option(
        None,
        help=f"numbers in a vector of an embedding; left out: min({USUAL_DIMENSION}, (levels + 1) // 2); with"
        f" hash too, where up to {ONE_HOT_LEVELS} buckets are columns unless it is given",
        ge=1,
        le=MOST_DIMENSION,
    )
    one_hot: int | None = option(
        None,
        help=f"levels up to which encode, left out, means one_hot; left out: {ONE_HOT_LEVELS}",
        ge=0,
        le=MOST_LEVELS,
    )
    signed: bool | None = option(
        None, help="true: two levels, one hot, are one column, 1 and -1, and 0 for all other cells"
    )
    std: float | None = option(
        None, help=f"deviation of the first numbers of an embedding; left out: {EmbeddingCell.std}", gt=0
    )
    most: int = option(
        MOST_LEVELS, help="levels that have a code of their own, the commonest ones", ge=1, le=MOST_KEPT
    )
    at_least: int = option(1, help="training rows that a level needs for a code of its own", ge=1)
    buckets: int = option(64, help="codes of encode: hash", ge=2, le=MOST_BUCKETS)
    indicator: bool | None = option(
        None,
        help="of one_hot, the column of missing, rare and unseen levels; left out: where training rows have"
        " some",
    )

    def __post_init__(self) -> None:
        if self.encode == "one_hot" and self.dimension is not None:
            raise OptionError("dimension", "is of an embedding, but encode is one_hot; leave one of them out")
        if self.encode is not None and self.one_hot is not None:
            raise OptionError("one_hot", f"chooses the encoding, but encode is {self.encode}; leave one out")


@dataclass(frozen=True, kw_only=True)
class Boolean:
    """1 for yes, -1 for no, 0 where it is missing: true and false, yes and no, 1 and 0."""

    type: Literal["boolean"] = "boolean"
    indicator: bool | None = option(None, help=_INDICATOR)


@dataclass(frozen=True, kw_only=True)
class Date:
    """Parts of a date: the time itself as a scaled number, and months, weekdays and hours as points on a
    circle (sine and cosine). Taken are 2024-02-29, 2024-02, 2024-02-29 23:59:59, and dates of typed
    files."""

    type: Literal["date"] = "date"
    parts: tuple[Literal["time", "month", "weekday", "hour"], ...] | None = option(
        None, help="left out: time, month, weekday, and hour where training rows have other hours than 0"
    )
    indicator: bool | None = option(None, help=_INDICATOR)

    def __post_init__(self) -> None:
        if self.parts is not None and (not self.parts or len(set(self.parts)) < len(self.parts)):
            raise OptionError("parts", "must name one part or more, each once")


@dataclass(frozen=True, kw_only=True)
class Text:
    """Free text, which is left out of the inputs, with a notice."""

    type: Literal["text"] = "text"


@dataclass(frozen=True, kw_only=True)
class Drop:
    """Left out of the inputs."""

    type: Literal["drop"] = "drop"


COLUMNS = registry(Auto, Boolean, Category, Date, Drop, Number, Text)


def automatic(facts: ColumnFacts, auto: Auto | None = None) -> Any:
    """The kind of a column, from its type and levels. auto: has the kinds of numbers and categories."""
    auto = Auto() if auto is None else auto
    if facts.numeric:
        return auto.number or Number()
    if facts.type == "date":
        return Date()
    if facts.type == "boolean":
        return Boolean()
    if facts.type != "text" or facts.levels is None:
        return Text()
    there = sum(facts.levels.values())
    many = len(facts.levels) > MOST_LEVELS or (len(facts.levels) > 20 and 2 * len(facts.levels) > there)
    return Text() if many else auto.category or Category()
