"""Files in buckets (s3://, gs://), read by the filesystems of fsspec, which users install.

Credentials and endpoints are configured for s3fs and gcsfs as their documentation says, in files and
variables of the machine. They are never in an address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from distbp.core.errors import DataError, DistbpError
from distbp.core.imports import missing
from distbp.data.addresses import BUCKETS, Address
from distbp.data.remote.content import Content

_PIECE = 8 * 2**20
# The facts about a file that change with its content: a digest, a version, or the time of the last change.
_MARKS = ("ETag", "etag", "generation", "VersionId", "md5Hash", "LastModified", "updated")


class Object(NamedTuple):
    """A file in a bucket. `path`: as its filesystem names it. `name`: its address."""

    path: str
    name: str


@contextmanager
def bucket_contents(address: Address, wanted: Callable[[str], bool], most: int) -> Iterator[list[Content]]:
    """Yields the file at an address, or the files that match a pattern, or the files below a folder whose
    paths from there are `wanted`; in the order of their names, at most `most`. A file is opened when its
    first piece is taken. Raises DataError, also if a file changes while it is read."""
    files = _filesystem(address)
    objects = _objects(files, address, wanted)
    if len(objects) > most:
        raise DataError(f"{address.name}: {len(objects):,} files; at most {most:,} make a table")
    yield [_content(files, each) for each in objects]


def _filesystem(address: Address) -> Any:
    """The filesystem of an address. Raises DataError if its package is not installed."""
    package = BUCKETS[address.scheme]
    try:
        import fsspec

        # Instances and listings that another part of the program has cached are not used.
        return fsspec.filesystem(address.scheme, skip_instance_cache=True, use_listings_cache=False)
    except ImportError:
        raise DataError(missing(f"{address.name}: {address.scheme}://", package, package)) from None


def _objects(files: Any, address: Address, wanted: Callable[[str], bool]) -> list[Object]:
    path = f"{address.host}{address.path}".rstrip("/")
    pattern = any(c in address.path for c in "*[")
    with _told(address.name):
        if pattern:
            found = [p for p, of in files.glob(path, detail=True).items() if of["type"] == "file"]
        elif files.info(path)["type"] == "file":
            found = [path]
        else:
            found = [p for p in files.find(path) if wanted(p.lstrip("/").removeprefix(f"{path}/"))]
    if not found:
        raise DataError(f"{address.name}: {'nothing fits this' if pattern else 'no table lies'} there")
    return [Object(path, f"{address.scheme}://{path.lstrip('/')}") for path in sorted(found)]


def _content(files: Any, one: Object) -> Content:
    with _told(one.name):
        facts = files.info(one.path)
    size, mark = facts.get("size"), _mark(facts)
    return Content(one.name, one.name, size, mark, _pieces(files, one, size, mark))


def _pieces(files: Any, one: Object, size: int | None, mark: str) -> Iterator[bytes]:
    count = 0
    with _told(one.name):
        with files.open(one.path, "rb", block_size=_PIECE) as file:
            while piece := file.read(_PIECE):
                count += len(piece)
                yield piece
        if size is not None and count < size:
            raise DataError(f"{one.name}: cut off after {count:,} bytes; nothing is kept of it, try again")
        if _mark(files.info(one.path)) != mark:
            raise DataError(f"{one.name}: changed while it was read; try again")


def _mark(facts: Any) -> str:
    return " ".join(str(facts[name]) for name in _MARKS if facts.get(name) is not None)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turns the errors of filesystems into DataError. Each filesystem raises errors of its own."""
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
