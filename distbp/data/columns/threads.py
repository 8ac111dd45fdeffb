"""Reads and computes at the same time, in threads, because pyarrow and NumPy release Python's lock."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from distbp.core import settings

A = TypeVar("A")
B = TypeVar("B")
_MOST = 4


def ahead(items: Iterable[A]) -> Iterator[A]:
    """Yields the items in order. While the caller uses an item, a thread makes the next one."""
    iterator = iter(items)

    def following() -> list[A]:
        return list(itertools.islice(iterator, 1))

    pool = ThreadPoolExecutor(1, "distbp-ahead")
    try:
        coming = pool.submit(following)
        while found := coming.result():
            coming = pool.submit(following)
            yield found[0]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Threads:
    """A pool of threads, one for each processor, but at most `_MOST`. Use it in `with`."""

    def __enter__(self) -> Threads:
        self._pool = ThreadPoolExecutor(min(_MOST, settings.processors()), "distbp-columns")
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> list[B]:
        """Returns the results in order; waits. Raises the error of the first call that failed."""
        return list(self._pool.map(function, items))
