"""Settings from the environment: one table, and the only module that reads `os.environ`.

A setting describes the machine and never changes the result of a job; the job holds everything that does.
Sizes may be written in bytes or with KiB, MiB, GiB or TiB.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from distbp.core.errors import SettingsError

_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@dataclass(frozen=True)
class Setting:
    """An environment variable. `unit`: the unit of a number ("bytes", "times"); "": the value is text.
    `choices`: the texts that are allowed; empty: all. `most`: the largest number; None: no limit. `of`: the
    only program that reads it, "client" or "service"; "": every process that trains."""

    name: str
    default: int | str
    unit: str
    help: str
    choices: tuple[str, ...] = ()
    most: int | None = None
    of: Literal["", "client", "service"] = ""

    @property
    def about(self) -> str:
        """The help text, after the program in `of` and a colon, if there is one."""
        return f"{self.of}: {self.help}" if self.of else self.help

    def parse(self, text: str) -> int | str:
        """The value that `text` stands for. Raises SettingsError, which names the allowed values."""
        if isinstance(self.default, str):
            if self.choices and text not in self.choices:
                allowed = ", ".join(self.choices)
                raise SettingsError(
                    f"{self.name} is {text!r}, but must be one of: {allowed}. Mend or unset it."
                )
            return text
        match = re.fullmatch(r"(\d{1,18}) *(|KiB|MiB|GiB|TiB)", text.strip())
        size = match is not None and (self.unit == "bytes" or not match[2])
        value = int(match[1]) * _UNITS[match[2]] if match is not None and size else 0
        if self.most is not None and not 1 <= value <= self.most:
            raise SettingsError(
                f"{self.name} is {text!r}, but must be a whole number from 1 to {self.most}. Mend or unset"
                " it."
            )
        if value < 1:
            example = "1073741824 or 1GiB" if self.unit == "bytes" else str(self.default)
            raise SettingsError(
                f"{self.name} is {text!r}, but must be a whole number of {self.unit} above 0,"
                f" such as {example}. Mend or unset it."
            )
        return value


def _table(*settings: Setting) -> Mapping[str, Setting]:
    return MappingProxyType({setting.name: setting for setting in settings})


SETTINGS = _table(
    Setting(
        "DISTBP_KERNELS",
        "auto",
        "",
        "which kernels compute; numpy: NumPy's; numba: compiled ones; fma: with large products of our own"
        " (AVX-512); mkl: with MKL's products; amx: with large ones on the matrix unit (Intel AMX); auto: the"
        " last one that can be used",
        choices=("auto", "numpy", "numba", "fma", "mkl", "amx"),
    ),
    Setting("DISTBP_MAX_FILE_BYTES", 2**40, "bytes", "the largest data file that is opened"),
    Setting(
        "DISTBP_MAX_UNPACKED_BYTES",
        4 * 2**30,
        "bytes",
        "the most that a compressed file or archive, or a generated table, may fill in memory",
    ),
    Setting(
        "DISTBP_MAX_EXPANSION",
        200,
        "times",
        "how many times its packed size a compressed file may unpack to",
    ),
    Setting(
        "DISTBP_EXPANSION_FREE_BYTES",
        16 * 2**20,
        "bytes",
        "up to this unpacked size a file may have any expansion (small files of zeros are harmless)",
    ),
    Setting(
        "DISTBP_MAX_DIRECTORY_BYTES",
        2**20,
        "bytes",
        "the largest table of contents of an archive that is read",
    ),
    Setting(
        "DISTBP_PREPARE_BYTES",
        2 * 2**30,
        "bytes",
        "prepared inputs up to this size are kept in memory; larger ones are prepared batch by batch",
    ),
    Setting(
        "DISTBP_CACHE",
        "",
        "",
        "where large prepared tables and fetched files are kept for the next start; empty: distbp/ below"
        " XDG_CACHE_HOME; none: they are not",
    ),
    Setting("DISTBP_CACHE_BYTES", 8 * 2**30, "bytes", "the most that all kept tables fill; older ones go"),
    Setting(
        "DISTBP_REMOTE",
        "",
        "",
        "addresses that tables may be fetched from, with commas between: https, http, s3, gs, alone or with a"
        " place (s3://our-bucket/public); empty: none may",
    ),
    Setting(
        "DISTBP_REMOTE_PRIVATE",
        "",
        "",
        "hosts that tables may be fetched from although they are in a private network, as"
        " store.internal:8443, with commas between",
    ),
    Setting(
        "DISTBP_REMOTE_BYTES",
        64 * 2**30,
        "bytes",
        "the most that fetched files fill below DISTBP_CACHE; those used longest ago go",
    ),
    Setting(
        "DISTBP_REMOTE_DEADLINE_S",
        21_600,
        "seconds",
        "how long fetching one file of an address may take",
    ),
    Setting(
        "DISTBP_PROCESSORS",
        100_000,
        "processors",
        "the most that one process computes on, where it has more; a service's runner has as many as slots",
    ),
    Setting(
        "RAY_ADDRESS", "", "", "the Ray cluster to train on; empty: one embedded in the training process"
    ),
    Setting(
        "DISTBP_URL",
        "",
        "",
        "the address of the service; empty: the one that `distbp serve` wrote down for this user",
        of="client",
    ),
    Setting(
        "DISTBP_TOKEN",
        "",
        "",
        "the token; empty: the one that `distbp serve` wrote down for this user",
        of="client",
    ),
    Setting("NUMBA_DISABLE_JIT", "", "", "1: Numba compiles nothing, and kernels are those of NumPy"),
    Setting("XDG_CACHE_HOME", "", "", "below it lies distbp/, with prepared tables; empty: ~/.cache"),
    Setting("XDG_CONFIG_HOME", "", "", "below it lies distbp/service.json; empty: ~/.config", of="client"),
    Setting(
        "XDG_DATA_HOME", "", "", "below it lies distbp/, its folder; empty: ~/.local/share", of="service"
    ),
    Setting(
        "DISTBP_SERVICE_HOME",
        "",
        "",
        "its folder (`--data`); empty: distbp/ below XDG_DATA_HOME",
        of="service",
    ),
    Setting(
        "DISTBP_SERVICE_WORK",
        "",
        "",
        "the folder that API, dispatcher and all runners share; empty: work/ in its folder",
        of="service",
    ),
    Setting(
        "DISTBP_SERVICE_DATABASE",
        "",
        "",
        "the URL of its database, as postgresql://user@host/name; empty: SQLite in its folder",
        of="service",
    ),
    Setting("DISTBP_SERVICE_HOST", "127.0.0.1", "", "the address that the API listens on", of="service"),
    Setting("DISTBP_SERVICE_PORT", 8470, "port", "the port of the API", most=65535, of="service"),
    Setting(
        "DISTBP_SERVICE_API",
        "",
        "",
        "the URL by which runners reach the API; empty: this machine, at the port of the API",
        of="service",
    ),
    Setting(
        "DISTBP_SERVICE_LAUNCHER",
        "local",
        "",
        "how runners are started: as processes of the dispatcher's machine, or as Ray jobs",
        choices=("local", "ray-jobs"),
        of="service",
    ),
    Setting(
        "DISTBP_SERVICE_RAY", "", "", "the dashboard of the Ray cluster, as http://head:8265", of="service"
    ),
    Setting(
        "DISTBP_SERVICE_SLOTS",
        "auto",
        "",
        "the workers that run at the same time, over all jobs; auto: the CPUs of this machine",
        of="service",
    ),
    Setting(
        "DISTBP_SERVICE_DATA",
        "",
        "",
        "the folder with files that jobs may name; empty: none may",
        of="service",
    ),
    Setting(
        "DISTBP_SERVICE_HOSTS",
        "",
        "",
        "names it is reached by, besides localhost, with commas between",
        of="service",
    ),
    Setting(
        "DISTBP_SERVICE_ORIGINS",
        "",
        "",
        "other origins whose pages may call it, as https://example.org, with commas between",
        of="service",
    ),
    Setting("DISTBP_SERVICE_DATASET_BYTES", 4 * 2**30, "bytes", "the largest dataset it takes", of="service"),
    Setting(
        "DISTBP_SERVICE_PROJECT_BYTES",
        64 * 2**30,
        "bytes",
        "the most that a project's datasets, jobs and models fill on the disk together",
        of="service",
    ),
    Setting(
        "DISTBP_SERVICE_JOB_BYTES",
        64 * 2**30,
        "bytes",
        "the most that one job fills on the disk, checkpoints and all",
        of="service",
    ),
    Setting(
        "DISTBP_SERVICE_PROJECT_SLOTS", 10**9, "slots", "slots that a project holds at a time", of="service"
    ),
    Setting(
        "DISTBP_SERVICE_PROJECT_JOBS", 10**9, "jobs", "jobs of a project that run at a time", of="service"
    ),
    Setting("DISTBP_SERVICE_PROJECT_UPLOADS", 4, "uploads", "uploads of a project at a time", of="service"),
    Setting(
        "DISTBP_SERVICE_DEADLINE_S",
        30 * 86400,
        "seconds",
        "the deadline of a job that is submitted without one, from then on",
        of="service",
    ),
    Setting(
        "DISTBP_SERVICE_REQUESTS_PER_S", 200, "requests", "what one token may ask in a second", of="service"
    ),
    Setting(
        "DISTBP_SERVICE_WAITING_JOBS", 100_000, "jobs", "jobs of a project that have not ended", of="service"
    ),
    Setting(
        "DISTBP_SERVICE_METRICS",
        "open",
        "",
        "whether /metrics, which holds totals only, answers without a token",
        choices=("open", "token"),
        of="service",
    ),
    Setting("DISTBP_TEST_DATA", "", "", "the folder with the tests' data (data/ and golden/ below it)"),
)


def get(name: str) -> Any:
    """The value of a setting: an int if its default is an int, else text. An empty variable counts as unset.

    Raises SettingsError if the environment holds a value that is not allowed, KeyError if the name is not in
    `SETTINGS`.
    """
    setting = SETTINGS[name]
    text = os.environ.get(name)
    return setting.default if text is None or text == "" else setting.parse(text)


_OF_KUBERNETES = frozenset({"DISTBP_SERVICE_HOST", "DISTBP_SERVICE_PORT"})  # set for a Service named distbp


def misspelled() -> list[str]:
    """A line for each unknown DISTBP_ variable whose name is similar to that of a setting."""
    found = []
    for name in sorted(os.environ):
        if name.startswith("DISTBP_") and name not in SETTINGS and name not in _OF_KUBERNETES:
            import difflib

            for near in difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.85):
                found.append(f"{name} is not a setting; did you mean {near}?")
    return found


# The variables of a service that its runners get: those of Python, Ray, libraries and locales. They hold no
# secrets except Ray's.
_HANDED_ON = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "NO_COLOR",
    "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "LD_PRELOAD", "SSL_CERT_FILE", "SSL_CERT_DIR",
})  # fmt: skip
_HANDED_ON_FROM = ("LC_", "PYTHON", "RAY_", "NUMBA_", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "MALLOC_")


def for_runners() -> dict[str, str]:
    """The environment for a runner: only the variables of this process that training needs. So jobs see no
    passwords, keys or tokens of the service."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _HANDED_ON
        or name.startswith(_HANDED_ON_FROM)
        or (name in SETTINGS and not SETTINGS[name].of)
    }


def processors() -> int:
    """The number of processors that this process may use: at most its affinity and DISTBP_PROCESSORS."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(there, int(get("DISTBP_PROCESSORS")))


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables within this block, for libraries that read them, and restores them after."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
