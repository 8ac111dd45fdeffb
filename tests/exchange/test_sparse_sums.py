"""Rows of tables on their way to another node: the vector that comes out has the bits of the one that went
in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbp.core.arrays import Array
from distbp.nn.layers import LAYERS
from distbp.nn.network import Network
from distbp.team.exchange.sparse_sums import (
    Scan,
    SparseSums,
    SparseTable,
    decode,
    encode,
    live_rows,
    scan_of,
    tables_within,
)

# Of float32: zeros of both signs, NaN with a payload, the smallest denormal, infinities.
ODD = np.array([0, 0x80000000, 0x7FC00001, 0xFFC00002, 1, 0x80000001, 0x7F800000, 0x3F800000], np.uint32)


def scans() -> list[Scan]:
    pytest.importorskip("numba", reason="Numba is not installed")
    return [live_rows, scan_of("numba")]


@st.composite
def vectors(draw: Any) -> tuple[Array, list[SparseTable]]:
    """A vector with tables, of which some rows are zero, and some lie next to each other."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    pieces: list[Array] = []
    tables, at = [], 0
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def bits(count: int) -> Array:
        return rng.choice(ODD, count * np.dtype(dtype).itemsize // 4).view(dtype)

    for _ in range(draw(st.integers(0, 4))):
        before, rows, width = draw(st.integers(0, 5)), draw(st.integers(1, 300)), draw(st.integers(1, 9))
        table = bits(rows * width).reshape(rows, width)
        table[rng.random(rows) < draw(st.sampled_from([0.0, 0.5, 0.95, 1.0]))] = 0.0
        pieces += [bits(before), table.ravel()]
        tables.append(SparseTable(at + before, at + before + rows * width, width))
        at = tables[-1].stop
    pieces.append(bits(draw(st.integers(0, 5))))
    return np.concatenate([np.empty(0, dtype), *pieces]), tables


@given(vectors())
def test_decoded_is_what_was_encoded_to_the_bit(given_: tuple[Array, list[SparseTable]]) -> None:
    vector, tables = given_
    for scan in scans():
        sent = encode(vector, tables, scan)
        assert sent.nbytes <= vector.nbytes
        found = decode(sent)
        assert found.dtype == vector.dtype
        assert found.tobytes() == vector.tobytes()
        assert found.flags.writeable and not np.shares_memory(found, vector)


@given(vectors())
def test_the_compiled_search_finds_what_the_definition_finds(given_: tuple[Array, list[SparseTable]]) -> None:
    vector, tables = given_
    definition, compiled = scans()
    for table in tables:
        words = vector[table.start : table.stop].reshape(-1, table.width).view(np.uint32)
        found = compiled(words)
        assert found.dtype == np.int64
        assert found.tolist() == definition(words).tolist()


def test_rows_are_sorted_and_unique_and_only_those_with_a_bit_are_sent() -> None:
    table = np.zeros((300, 2), np.float32)
    table[[7, 200, 299], [0, 1, 1]] = 1.0, -0.0, 1e-45  # minus zero and a denormal have bits
    sent = encode(np.concatenate([[5.0], table.ravel(), [6.0]], dtype=np.float32), [SparseTable(1, 601, 2)])
    assert isinstance(sent, SparseSums)
    assert (sent.size, sent.rows.tolist()) == (602, [7, 200, 299])
    assert sent.values.tolist() == [5, 6, 1, 0, 0, -0.0, 0, np.float32(1e-45)]
    assert sent.nbytes == 3 * 2 + 8 * 4  # numbers of two bytes, for there are more than 256 rows


@pytest.mark.parametrize("live, whole", [(0, False), (7, False), (8, True), (10, True)])
def test_a_table_is_whole_where_its_rows_are_not_fewer_bytes(live: int, whole: bool) -> None:
    """Ten rows of one float32: a live one costs five bytes of forty."""
    vector = np.zeros(10, np.float32)
    vector[:live] = 1.0
    assert isinstance(encode(vector, [SparseTable(0, 10, 1)]), SparseSums) is not whole


def test_a_network_without_tables_sends_the_vector_itself() -> None:
    vector = np.zeros(9, np.float32)
    assert encode(vector, []) is vector


# Which tensors are tables ----------------------------------------------------------------------------------


def network(*layers: dict[str, Any]) -> Network:
    made = [LAYERS[one["type"]](**{k: v for k, v in one.items() if k != "type"}) for one in layers]
    return Network(made, (5,))


WIDE = {"type": "dense", "units": 9, "name": "wide"}
MEAN: list[dict[str, Any]] = [{"type": "average_steps"}, {"type": "dense", "units": 4}]


def test_an_embedding_is_sparse_unless_a_dense_layer_uses_its_table() -> None:
    table = {"type": "embedding", "entries": 9, "size": 4}
    own = network(table, *MEAN, WIDE)
    assert [tensor.path for tensor in own.sparse] == ["layers.0.embedding.weight"]
    assert network({**table, "shares": "wide.weight"}, *MEAN, WIDE).sparse == []


def test_a_table_of_two_embeddings_is_sparse() -> None:
    table = {"type": "embedding", "entries": 9, "size": 4, "name": "a"}
    other = {**table, "name": "b", "shares": "a.weight", "inputs": ("input",)}
    both = network(table, other, {"type": "add", "inputs": ("a", "b")}, *MEAN)
    assert [tensor.name for tensor in both.sparse] == ["weight"]
    assert both.sparse[0].stop == 36


@given(st.integers(0, 40), st.integers(0, 40))
def test_of_a_stretch_whole_rows_are_a_table(start: int, count: int) -> None:
    """A server's range may cut a row, which then belongs to no table; every whole row is in one."""
    tensors = network({"type": "embedding", "entries": 9, "size": 4}, *MEAN).sparse
    stop = start + count
    whole = [4 * row for row in range(9) if start <= 4 * row and 4 * row + 4 <= stop]
    found = tables_within(tensors, start, stop)
    assert [(t.start + start, t.stop + start, t.width) for t in found] == (
        [(whole[0], whole[-1] + 4, 4)] if whole else []
    )
