"""Bad and hostile data files, each with the text that the user reads and a bound on the memory it costs."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import stat
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from data_files import idx_bytes, idx_header, npy_bytes, npy_header, npy_header_text, write_idx

from distbp.core.errors import DataError, HostileFileError
from distbp.data.formats import Blobs, Idx, Npy, Npz, Spirals, Teacher, load
from distbp.data.safety import resolve

MIB = 2**20
GOOD = np.arange(6, dtype=np.float32).reshape(2, 3)


def npy(data: bytes):
    def make(folder):
        (folder / "x.npy").write_bytes(data)
        return Npy(inputs="x.npy")

    return make


def npy_array(array, **more):
    def make(folder):
        np.save(folder / "x.npy", array)
        for name, value in more.items():
            np.save(folder / f"{name}.npy", value)
        return Npy(inputs="x.npy", **{name: f"{name}.npy" for name in more})

    return make


def npz(entries, compression=zipfile.ZIP_DEFLATED, change=lambda data: data, **options):
    def make(folder):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for name, data in entries:
                archive.writestr(name, data)
        (folder / "d.npz").write_bytes(change(buffer.getvalue()))
        return Npz(path="d.npz", **({"targets": None} | options))

    return make


def idx(data: bytes, name: str = "x.idx", **options):
    def make(folder):
        (folder / name).write_bytes(data)
        return Idx(images=name, **options)

    return make


def labels(images, labels, **options):
    def make(folder):
        write_idx(folder / "x.idx", images)
        write_idx(folder / "y.idx", labels)
        return Idx(images="x.idx", labels="y.idx", **options)

    return make


def source(value):
    return lambda folder: value


def link_entry() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("inputs.npy")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def claim_directory(data: bytes) -> bytes:
    """An archive whose table of contents claims to be 3 GiB long."""
    at = data.rindex(b"PK\5\6")
    return data[: at + 12] + struct.pack("<I", 3 * 2**30) + data[at + 16 :]


def zeros_gz(count: int) -> bytes:
    pack = zlib.compressobj(9, wbits=31)
    return b"".join(pack.compress(bytes(MIB)) for _ in range(count // MIB)) + pack.flush()


def directory(folder):
    (folder / "x.npy").mkdir()
    return Npy(inputs="x.npy")


def pipe(folder):
    os.mkfifo(folder / "x.npy")
    return Npy(inputs="x.npy")


def misspelt(folder):
    np.save(folder / "train.npy", GOOD)
    return Npy(inputs="trian.npy")


def nan_at(row, column, value=np.nan):
    array = np.ones((9, 4), np.float32)
    array[row, column] = value
    return array


CUT = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 255, (50, 9)).astype(np.uint8)))
FLIPPED = CUT[:-6] + bytes([CUT[-6] ^ 1]) + CUT[-5:]  # a bit of the CRC
DAMAGED = CUT[:40] + b"\xff" * 60 + CUT[100:]

# name: (what makes the files and the source, error, the text)
BAD = {
    "missing": (
        source(Npy(inputs="no.npy")),
        DataError,
        "no.npy: there is no such file in ",
    ),
    "misspelt": (misspelt, DataError, "; did you mean 'train.npy'?"),
    "folder": (directory, DataError, "x.npy: this is a folder; name a data file in it"),
    "pipe": (
        pipe,
        HostileFileError,
        "x.npy: this is a device, pipe or socket; data must be in a regular file",
    ),
    "device": (
        source(Npy(inputs="/dev/zero")),
        HostileFileError,
        "/dev/zero: this is a device, pipe or socket",
    ),
    "empty file": (npy(b""), DataError, "x.npy: the file is empty; check that it was copied completely"),
    "no name": (source(Npy(inputs="")), DataError, "'' is not a file name; write the path of a data file"),
    "nul in name": (source(Npy(inputs="a\0b")), DataError, "'a\\x00b' is not a file name"),
    "long name": (
        source(Npy(inputs="x" * 5000)),
        DataError,
        "cannot be opened (File name too long); check the path",
    ),
    # .npy
    "npy: not one": (
        npy(b"hello, world"),
        DataError,
        "this is not a .npy file (it begins with b'hello,'); write it",
    ),
    "npy: pickle": (npy(pickle.dumps([1, 2])), DataError, "x.npy: this is not a .npy file"),
    "npy: short": (
        npy(b"\x93NUM"),
        DataError,
        "x.npy: the file ends inside its .npy header; copy or download it",
    ),
    "npy: version": (
        npy(b"\x93NUMPY\x09\x00" + bytes(99)),
        DataError,
        ".npy version 9 is not known; write it with",
    ),
    "npy: claims 32 GiB": (
        npy(npy_header("<f8", (2**32,)) + bytes(64)),
        HostileFileError,
        "x.npy: its header claims an array of shape (4294967296,), 34,359,738,368 bytes, but 64 follow",
    ),
    "npy: claims more than 2**64 bytes": (
        npy(npy_header("<f8", (2**62, 2**62)) + bytes(64)),
        HostileFileError,
        "x.npy: its header claims an array of shape (4611686018427387904, 4611686018427387904), 170,141,183,",
    ),
    "npy: negative": (
        npy(npy_header("<f8", (-1, 4))),
        DataError,
        "its .npy header is damaged; write the file again",
    ),
    "npy: cut off": (
        npy(npy_bytes("<f4", (4, 3))[:-1]),
        HostileFileError,
        "48 bytes, but 47 follow; the file was cut",
    ),
    "npy: two arrays": (
        npy(npy_bytes() + npy_bytes()),
        DataError,
        "bytes follow after the array that its header describes; write one array to one file",
    ),
    "npy: header of 4 GiB": (
        npy(b"\x93NUMPY\x02\x00\xff\xff\xff\xff"),
        HostileFileError,
        "its .npy header claims 4,294,967,295 bytes; at most 10,000 are allowed",
    ),
    "npy: program in header": (
        npy(npy_header_text("__import__('os').system('touch hacked')")),
        DataError,
        "its .npy header is damaged",
    ),
    "npy: nested header": (npy(npy_header_text("(" * 9000)), DataError, "x.npy: its .npy header is damaged"),
    "npy: long number": (
        npy(npy_header_text("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 9000 + ",)}")),
        DataError,
        "its .npy header is damaged",
    ),
    "npy: odd escapes": (npy(npy_header_text("'\\d'")), DataError, "x.npy: its .npy header is damaged"),
    "npy: shape of truth values": (
        npy(npy_header("<f4", (True, True))),
        DataError,
        "its .npy header is damaged",
    ),
    "npy: odd type": (npy(npy_header("f4,f4")), DataError, "its .npy header is damaged"),
    "npy: unknown type": (
        npy(npy_header("<q9")),
        DataError,
        "values of the unknown type '<q9'; save an array of numb",
    ),
    "npy: objects": (
        npy(npy_header("|O") + pickle.dumps([1])),
        HostileFileError,
        "x.npy: an array of Python objects, which only unpickling could read, and a pickle can"
        " run any program",
    ),
    "npy: structured": (
        npy_array(np.zeros(3, dtype=[("a", "f4"), ("b", "i4")])),
        DataError,
        "x.npy: a structured array (columns of several types); save plain numbers",
    ),
    "npy: complex": (
        npy_array(GOOD.astype(complex)),
        DataError,
        "x.npy: values of type complex128 cannot be trained on; allowed are bool, integers, and"
        " floats of 16, 32 or",
    ),
    "npy: text": (
        npy_array(np.array([["a", "bc"]])),
        DataError,
        "x.npy: values of type <U2 cannot be trained on",
    ),
    "npy: dates": (
        npy_array(np.array([["2020-01-01"]], dtype="datetime64[D]")),
        DataError,
        "x.npy: values of type datetime64[D] cannot be trained on",
    ),
    "npy: 9 dimensions": (
        npy_array(np.zeros((1,) * 9)),
        DataError,
        "an array of 9 dimensions; at most 8 are allowed",
    ),
    "npy: no rows": (
        npy_array(np.zeros((0, 3))),
        DataError,
        "x.npy: an array of shape (0, 3) holds no data; give at",
    ),
    "npy: one dimension": (
        npy_array(np.zeros(5)),
        DataError,
        "x.npy: the inputs have shape (5,), but must be (rows, features) or have more dimensions; for a"
        " single"
        " feature use inputs.reshape(-1, 1)",
    ),
    "npy: fewer targets": (
        npy_array(GOOD, targets=np.array([1])),
        DataError,
        "targets.npy: 1 targets for the 2 rows of inputs in x.npy; give one for each row",
    ),
    "npy: fewer weights": (
        npy_array(GOOD, weights=np.ones(3)),
        DataError,
        "weights.npy: 3 weights for the 2 rows of inputs in x.npy; give one for each row",
    ),
    "npy: targets of 3 dimensions": (
        npy_array(GOOD, targets=np.zeros((2, 2, 2))),
        DataError,
        "targets.npy: targets of shape (2, 2, 2); give labels (rows,) or values (rows, outputs)",
    ),
    "npy: weights of 2 dimensions": (
        npy_array(GOOD, weights=np.ones((2, 1))),
        DataError,
        "weights.npy: weights of shape (2, 1); give one number for each row, shape (rows,)",
    ),
    "npy: NaN": (
        npy_array(nan_at(7, 2)),
        DataError,
        "x.npy: row 7, column 2 of the inputs is NaN. 1 of 9 rows are bad; mend them, or set bad_rows: skip",
    ),
    "npy: Inf": (
        npy_array(nan_at(0, 3, np.inf)),
        DataError,
        "x.npy: row 0, column 3 of the inputs is Inf. 1 of 9",
    ),
    "npy: -Inf": (
        npy_array(nan_at(8, 0, -np.inf)),
        DataError,
        "row 8, column 0 of the inputs is -Inf. 1 of 9",
    ),
    "npy: NaN in a picture": (
        npy_array(nan_at(7, 2).reshape(9, 2, 2)),
        DataError,
        "x.npy: row 7, column (1, 0) of the inputs is NaN",
    ),
    "npy: NaN target": (
        npy_array(GOOD, targets=np.array([1.5, np.nan])),
        DataError,
        "targets.npy: row 1, column 0 of the targets is NaN. 1 of 2 rows are bad",
    ),
    "npy: negative weight": (
        npy_array(GOOD, weights=np.array([1, -0.5])),
        DataError,
        "x.npy: row 1 of the weights is -0.5. 1 of 2 rows are bad",
    ),
    "npy: no weight": (
        npy_array(GOOD, weights=np.zeros(2)),
        DataError,
        "x.npy: all weights are 0, so nothing can be learned; give some row a weight",
    ),
    # .npz
    "npz: not one": (
        npz([], change=lambda data: b"PK" + bytes(99)),
        DataError,
        "d.npz: this is not a sound .npz arch",
    ),
    "npz: cut off": (
        npz([("inputs.npy", npy_bytes())], change=lambda data: data[:-30]),
        DataError,
        "d.npz: this is not a sound .npz archive (File is not a zip file); write it again with numpy.savez",
    ),
    "npz: no such array": (
        npz([("x.npy", npy_bytes()), ("y.npy", npy_bytes())]),
        DataError,
        "d.npz: there is no array 'inputs'; the archive has: x, y. Name one of them, or null for none",
    ),
    "npz: climbs out": (
        npz([("inputs.npy", npy_bytes()), ("../../x.npy", b"")]),
        HostileFileError,
        "d.npz: the archive has an entry '../../x.npy' that points outside of it",
    ),
    "npz: climbs out by backslash": (
        npz([("inputs.npy", npy_bytes()), ("a\\..\\..\\x.npy", b"")]),
        HostileFileError,
        "that points outside of it; write it again with numpy.savez",
    ),
    "npz: absolute": (
        npz([("/etc/x.npy", b"")]),
        HostileFileError,
        "an entry '/etc/x.npy' that points outside",
    ),
    "npz: drive": (npz([("C:x.npy", b"")]), HostileFileError, "an entry 'C:x.npy' that points outside of it"),
    "npz: link": (
        npz([(link_entry(), b"/etc/passwd")]),
        HostileFileError,
        "the entry 'inputs.npy' is a link; write",
    ),
    "npz: objects": (
        npz([("inputs.npy", npy_header("|O") + pickle.dumps([1]))]),
        HostileFileError,
        "d.npz[inputs]: an array of Python objects",
    ),
    "npz: text in an entry": (
        npz([("inputs.npy", b"hello, world")]),
        DataError,
        "d.npz[inputs]: this is not a .npy",
    ),
    "npz: claims 32 GiB": (
        npz([("inputs.npy", npy_header("<f8", (2**32, 1)))]),
        HostileFileError,
        "d.npz[inputs]: it claims to unpack to 34,359,738,368 bytes; at most 4,294,967,296 are allowed. If"
        " you"
        " trust it, raise DISTBP_MAX_UNPACKED_BYTES",
    ),
    "npz: claims more than it holds": (
        npz([("inputs.npy", npy_bytes("<f4", (9, 9))[:-4])]),
        DataError,
        "d.npz[inputs]: its header claims 324 bytes of data, but only 320 follow; copy or download",
    ),
    "npz: holds more than it claims": (
        npz([("inputs.npy", npy_bytes() + bytes(20 * MIB))]),
        HostileFileError,
        "d.npz[inputs]: more data follows than the 24 bytes that its header claims",
    ),
    "npz: bomb": (
        npz([("inputs.npy", npy_bytes("<f4", (6 * MIB, 1)))]),
        HostileFileError,
        "packed bytes claim to unpack to 25,165,824, more than 200 times as much, as compression bombs do."
        " If you"
        " trust it, raise DISTBP_MAX_EXPANSION, or store it unpacked",
    ),
    "npz: packed with LZMA": (
        npz([("inputs.npy", npy_bytes())], zipfile.ZIP_LZMA),
        HostileFileError,
        "d.npz[inputs]: packed in a way that numpy never uses (zip method 14)",
    ),
    "npz: contents of 3 GiB": (
        npz([("inputs.npy", npy_bytes())], change=lambda data: bytes(2**20) + claim_directory(data)),
        DataError,
        "d.npz: this is not a sound .npz archive (",
    ),
    "npz: many entries": (
        npz([(f"{i:0200}.npy", b"") for i in range(6000)], zipfile.ZIP_STORED),
        HostileFileError,
        "the table of contents of the archive claims 1,500,000 bytes; at most 1,048,576 are allowed. If you"
        " trust"
        " it, raise DISTBP_MAX_DIRECTORY_BYTES",
    ),
    "npz: damaged data": (
        npz(
            [("inputs.npy", npy_bytes())],
            zipfile.ZIP_STORED,
            lambda data: data.replace(bytes(24), b"\1" * 24, 1),
        ),
        DataError,
        "d.npz: this is not a sound .npz archive (Bad CRC-32 for file 'inputs.npy')",
    ),
    # IDX
    "idx: not one": (
        idx(b"hello, world"),
        DataError,
        "x.idx: this is not an IDX file (it begins with 68 65 6c 6c; IDX begins with 00 00 and"
        " a type from 08 to 0e)",
    ),
    "idx: type": (
        idx(idx_header(2, 3, code=0x0A) + bytes(6)),
        DataError,
        "it begins with 00 00 0a 02; IDX begins",
    ),
    "idx: short": (
        idx(b"\0\0\x08\x03\0\0"),
        DataError,
        "x.idx: the file ends inside its IDX header; copy or download",
    ),
    "idx: no dimension": (
        idx(b"\0\0\x08\0\0"),
        DataError,
        "an IDX array of 0 dimensions; 1 to 8 are allowed",
    ),
    "idx: 200 dimensions": (
        idx(b"\0\0\x08\xc8" + bytes(900)),
        DataError,
        "an IDX array of 200 dimensions; 1 to 8",
    ),
    "idx: no rows": (
        idx(idx_header(0, 28, 28)),
        DataError,
        "x.idx: an array of shape (0, 28, 28) holds no data",
    ),
    "idx: claims 32 GiB": (
        idx(idx_header(2**20, 2**15) + bytes(99)),
        HostileFileError,
        "x.idx: its header claims an array of shape (1048576, 32768), 34,359,738,368 bytes, but 99 follow",
    ),
    "idx: cut off": (
        idx(idx_bytes(GOOD)[:-1]),
        HostileFileError,
        "24 bytes, but 23 follow; the file was cut off",
    ),
    "idx: too long": (
        idx(idx_bytes(GOOD) + b"!"),
        HostileFileError,
        "24 bytes, but 25 follow; the file was cut off or",
    ),
    "idx: labels as images": (
        idx(idx_bytes(GOOD[0])),
        DataError,
        "x.idx: the inputs have shape (3,), but must be",
    ),
    "idx: fewer labels": (
        labels(GOOD, np.zeros(5, np.uint8)),
        DataError,
        "y.idx: 5 labels for the 2 rows of inputs in x.idx; give one for each row",
    ),
    "idx: fewer labels than rows asked for": (
        labels(GOOD, np.zeros(1, np.uint8), rows=(1, 2)),
        DataError,
        "y.idx: 1 labels for the 2 rows of inputs in x.idx",
    ),
    "gz: cut off": (
        idx(CUT[:-30], "x.gz"),
        DataError,
        "x.gz: the compressed data is cut off; copy or download the",
    ),
    "gz: cut off in its header": (idx(CUT[:12], "x.gz"), DataError, "x.gz: the compressed data is cut off"),
    "gz: cut off in its checksum": (idx(CUT[:-2], "x.gz"), DataError, "x.gz: the compressed data is cut off"),
    "gz: checksum": (idx(FLIPPED, "x.gz"), DataError, "x.gz: the compressed data is damaged (Error -3"),
    "gz: damaged": (idx(DAMAGED, "x.gz"), DataError, "x.gz: the compressed data is damaged (Error -3"),
    "gz: rubbish after it": (
        idx(CUT + b"rubbish", "x.gz"),
        DataError,
        "x.gz: the compressed data is damaged (Error",
    ),
    "gz: claims less than it holds": (
        idx(gzip.compress(idx_header(2, 3) + bytes(50 * MIB)), "x.gz"),
        HostileFileError,
        "x.gz: more data follows than the 6 bytes that its header claims; the header or the file is wrong",
    ),
    "gz: claims more than it holds": (
        idx(gzip.compress(idx_header(200, 30) + bytes(999)), "x.gz"),
        DataError,
        "x.gz: its header claims 6,000 bytes of data, but only 999 follow; copy or download the file again",
    ),
    "gz: claims 32 GiB": (
        idx(gzip.compress(idx_header(2**20, 2**15)), "x.gz"),
        HostileFileError,
        "x.gz: it claims to unpack to 34,359,738,368 bytes; at most 4,294,967,296 are allowed",
    ),
    "gz: bomb": (
        idx(gzip.compress(idx_header(64, MIB)) + zeros_gz(64 * MIB), "x.gz"),
        HostileFileError,
        "claim to unpack to 67,108,864, more than 200 times as much, as compression bombs do",
    ),
    # rows
    "rows: past the end": (
        labels(GOOD, np.zeros(2, np.uint8), rows=(1, 3)),
        DataError,
        "x.idx: rows [1, 3] go past the end; the data has 2 rows",
    ),
    "rows: none": (
        labels(GOOD, np.zeros(2, np.uint8), rows=(1, 1)),
        DataError,
        "x.idx: rows [1, 1] are none; write [first, one past the last], counted from 0",
    ),
    "rows: negative": (
        source(Spirals(rows=(-5, 4))),
        DataError,
        "spirals: rows [-5, 4] are none; write [first,",
    ),
    "rows: past the samples": (
        source(Spirals(samples=10, rows=(0, 11))),
        DataError,
        "spirals: rows [0, 11] go past the end; the data has 10 rows",
    ),
    "synthetic: too large": (
        source(Teacher(samples=10**9, features=100)),
        DataError,
        "teacher: 1,000,000,000 rows of 101 numbers take more than the 4,294,967,296 bytes allowed; use"
        " fewer rows,"
        " or raise DISTBP_MAX_UNPACKED_BYTES",
    ),
    "synthetic: a block is too large": (
        source(Blobs(samples=1, features=10**9)),
        DataError,
        "blobs: a block of 4,096 rows of 1,000,000,000 numbers take more than the 4,294,967,296 bytes"
        " allowed; use fewer numbers in a row",
    ),
    "synthetic: too many classes": (
        source(Blobs(classes=10**12)),
        DataError,
        "blobs: the 2,000,000,000,000 numbers that all rows share take more than the",
    ),
    "synthetic: too many units": (
        source(Teacher(hidden=10**8)),
        DataError,
        "that all rows share take more than the 4,294,967,296 bytes allowed; use fewer features, classes or",
    ),
    "synthetic: one class": (
        source(Teacher(task="classification")),
        DataError,
        "teacher: classification needs at least 2 outputs, one for each class; set outputs: 2 or more",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file(name, tmp_path):
    make, error, text = BAD[name]
    described = make(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(error) as caught:
            load(described, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert text in str(caught.value)
    if name not in ("missing", "misspelt"):  # these name the folder that was searched
        assert str(tmp_path) not in str(caught.value)
    assert peak < 8 * MIB
    assert not (tmp_path / "hacked").exists()


def test_the_table_is_long_enough():
    assert len(BAD) >= 60


@pytest.mark.parametrize(
    ("setting", "value", "make", "text"),
    [
        (
            "DISTBP_MAX_FILE_BYTES",
            "50",
            npy(npy_bytes()),
            "bytes; at most 50 are allowed. If you trust it, raise DISTBP_MAX_FILE_BYTES",
        ),
        (
            "DISTBP_MAX_UNPACKED_BYTES",
            "40",
            npz([("inputs.npy", npy_bytes()), ("targets.npy", npy_bytes())], targets="targets"),
            "d.npz[targets]: the arrays claim to unpack to more than DISTBP_MAX_UNPACKED_BYTES"
            " together; raise it",
        ),
        (
            "DISTBP_EXPANSION_FREE_BYTES",
            "1KiB",
            npz([("inputs.npy", npy_bytes("<f4", (9999, 9)))]),
            "more than 200 times as much",
        ),
    ],
)
def test_limits_are_settings(setting, value, make, text, tmp_path, monkeypatch):
    described = make(tmp_path)
    load(described, tmp_path)
    monkeypatch.setenv(setting, value)
    with pytest.raises(HostileFileError) as caught:
        load(described, tmp_path)
    assert text in str(caught.value)


def test_a_trusted_bomb_can_be_read(tmp_path, monkeypatch):
    described = npz([("inputs.npy", npy_bytes("<f4", (5 * MIB, 1)))])(tmp_path)
    monkeypatch.setenv("DISTBP_MAX_EXPANSION", "2000")
    assert len(load(described, tmp_path)) == 5 * MIB


def test_two_entries_of_one_name(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        described = npz([("inputs.npy", npy_bytes()), ("inputs.npy", npy_bytes())])(tmp_path)
    with pytest.raises(HostileFileError, match=r"d.npz: the archive has two entries 'inputs.npy'"):
        load(described, tmp_path)


def test_an_encrypted_entry(tmp_path):
    def encrypt(data: bytes) -> bytes:
        at = data.index(b"PK\1\2")
        return data[:6] + b"\1" + data[7 : at + 8] + b"\1" + data[at + 9 :]

    described = npz([("inputs.npy", npy_bytes())], change=encrypt)(tmp_path)
    with pytest.raises(DataError, match=r"d.npz\[inputs\]: the entry is encrypted; write the archive again"):
        load(described, tmp_path)


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_give_a_data_error_or_the_data(seed, tmp_path):
    """Anything may happen to a file, but the user sees a DataError and never a traceback from inside."""
    random = np.random.default_rng(seed)
    kinds = [
        npz([("inputs.npy", npy_bytes("<f8", (7, 5)))]),
        npy(npy_bytes("<f8", (7, 5))),
        idx(gzip.compress(idx_bytes(GOOD)), "x.gz"),
        idx(idx_bytes(GOOD)),
    ]
    described = kinds[seed % 4](tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for _ in range(25):
        data = bytearray(whole)
        for place in random.integers(len(data), size=random.integers(1, 6)):
            data[place] = random.integers(256)
        path.write_bytes(bytes(data[: random.integers(len(data) // 2, len(data) + 1)]))
        try:
            load(described, tmp_path)
        except DataError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "/etc/passwd",
            "/etc/passwd: absolute paths are not allowed here; write the path relative to the data",
        ),
        ("../x.npy", "../x.npy: '..' is not allowed in a data path; name a file below the data folder"),
        ("a/../../x.npy", "'..' is not allowed in a data path"),
        (
            "out",
            "out: a link leads out of the data folder; copy the file into the folder instead of linking it",
        ),
        ("away/x.npy", "away/x.npy: a link leads out of the data folder"),
    ],
)
def test_confined_paths(path, text, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    np.save(tmp_path / "x.npy", GOOD)
    (folder / "out").symlink_to(tmp_path / "x.npy")
    (folder / "away").symlink_to(tmp_path)
    with pytest.raises(HostileFileError) as caught:
        load(Npy(inputs=path), folder, confined=True)
    assert text in str(caught.value)


def test_a_loop_of_links(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match=r"loop: (the path cannot be followed|cannot be opened)"):
        load(Npy(inputs="loop"), tmp_path, confined=True)
    with pytest.raises(DataError, match=r"loop: cannot be opened .Too many levels of symbolic links."):
        load(Npy(inputs="loop"), tmp_path)


def test_links_and_folders_inside_are_fine(tmp_path):
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    np.save(folder / "deep" / "x.npy", GOOD)
    (folder / "in.npy").symlink_to(folder / "deep" / "x.npy")
    for path in ("in.npy", "deep/x.npy", "./deep/x.npy"):
        assert len(load(Npy(inputs=path), folder, confined=True)) == 2


def test_unconfined_paths_may_leave_the_folder(tmp_path):
    np.save(tmp_path / "x.npy", GOOD)
    folder = tmp_path / "jobs"
    folder.mkdir()
    assert len(load(Npy(inputs="../x.npy"), folder)) == 2
    assert len(load(Npy(inputs=str(tmp_path / "x.npy")), folder)) == 2
    assert resolve(folder, "a/b") == folder / "a/b"


def test_a_file_that_may_not_be_read(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("the superuser may read every file")
    np.save(tmp_path / "x.npy", GOOD)
    (tmp_path / "x.npy").chmod(0)
    with pytest.raises(DataError, match=r"x.npy: cannot be opened .Permission denied.; check the path"):
        load(Npy(inputs="x.npy"), tmp_path)
