"""Files of a store in the cloud (s3://, gs://), by the filesystems of fsspec, which users install.

Who may read what, and by which endpoint, is set up for s3fs and gcsfs as their pages say: files and variables
of the machine. An address says neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from distbp.core.errors import DataError, DistbpError
from distbp.core.imports import missing
from distbp.data.remote.addresses import BUCKETS, Address
from distbp.data.remote.content import Content

_PIECE = 8 * 2**20
# What a store says of an object that changes with it: its digest or number, or the time of its last change.
_MARKS = ("ETag", "etag", "generation", "VersionId", "md5Hash", "LastModified", "updated")


class Entry(NamedTuple):
    """A file of a store. `path`: as its filesystem names it. `name`: its address."""

    path: str
    name: str


class Store:
    """The filesystem of an address. Raises DataError where its package is not installed."""

    def __init__(self, address: Address) -> None:
        self.address = address
        package = BUCKETS[address.scheme]
        try:
            import fsspec

            # What another part of the program has set up, or listed before, is not used.
            self._files: Any = fsspec.filesystem(
                address.scheme, skip_instance_cache=True, use_listings_cache=False
            )
        except ImportError:
            raise DataError(missing(f"{address.name}: {address.scheme}://", package, package)) from None

    def entries(self, wanted: Callable[[str], bool]) -> list[Entry]:
        """The file of the address; or those `wanted` by name below a folder; or what fits a pattern; in the
        order of their names."""
        path = f"{self.address.host}{self.address.path}".rstrip("/")
        pattern = any(c in self.address.path for c in "*[")
        with _told(self.address.name):
            if pattern:
                found = [p for p, of in self._files.glob(path, detail=True).items() if of["type"] == "file"]
            elif self._files.info(path)["type"] == "file":
                found = [path]
            else:
                found = [p for p in self._files.find(path) if wanted(p.rpartition("/")[2])]
        if not found:
            raise DataError(
                f"{self.address.name}: {'nothing fits this' if pattern else 'no table lies'} there"
            )
        names = sorted(found)
        return [Entry(name, f"{self.address.scheme}://{name.lstrip('/')}") for name in names]

    @contextmanager
    def opened(self, entry: Entry) -> Iterator[Content]:
        """Raises DataError, also where the file changes while it is read."""
        with _told(entry.name):
            facts = self._files.info(entry.path)
            mark = _mark(facts)
            with self._files.open(entry.path, "rb", block_size=_PIECE) as file:
                yield Content(
                    entry.name, facts.get("size"), mark, self._pieces(entry, file, facts.get("size"), mark)
                )

    def _pieces(self, entry: Entry, file: Any, size: int | None, mark: str) -> Iterator[bytes]:
        count = 0
        with _told(entry.name):
            while piece := file.read(_PIECE):
                count += len(piece)
                yield piece
            if size is not None and count < size:
                raise DataError(
                    f"{entry.name}: cut off after {count:,} bytes; nothing is kept of it, try again"
                )
            if _mark(self._files.info(entry.path)) != mark:
                raise DataError(f"{entry.name}: changed while it was read; try again")


def _mark(facts: Any) -> str:
    return " ".join(str(facts[name]) for name in _MARKS if facts.get(name) is not None)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What the libraries of a store raise, of which each has its own errors, as DataError."""
    try:
        yield
    except (DistbpError, GeneratorExit):
        raise
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such file; check the address") from None
    except PermissionError:
        raise DataError(
            f"{name}: may not be read; check the address, and what this machine is allowed to read"
        ) from None
    except Exception as error:
        text, package = str(error).split("\n")[0][:120], BUCKETS[name.partition(":")[0]]
        raise DataError(
            f"{name}: cannot be read ({type(error).__name__}: {text}); check how {package} is set up here, or"
            " try again"
        ) from None
