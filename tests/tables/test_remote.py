"""Tables at addresses of the web: which are followed, that they give the same bits, and what is said of
those that cannot be had."""

from __future__ import annotations

import gzip
import itertools
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from elsewhere import Page, Site, certificate, serving
from houses import houses, job, write

from distbp import train
from distbp.cli.data import source_of
from distbp.cli.main import group
from distbp.core.errors import DataError, HostileFileError, JobError, SettingsError
from distbp.data import digest
from distbp.data.addresses import allowed, is_address
from distbp.data.columns import opening
from distbp.data.columns.files import find_files
from distbp.data.columns.reading import open_raw
from distbp.data.formats import Npy, TableFiles, load
from distbp.data.remote import fetching, web
from distbp.data.remote.web import is_public
from distbp.run.splits import open_splits

LONG_AGO, NOW = "Mon, 02 Nov 2026 10:00:00 GMT", "Tue, 03 Nov 2026 10:00:00 GMT"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server in a private network, as an operator allows it."""
    with serving() as found:
        monkeypatch.setenv("DISTBP_REMOTE", "http")
        monkeypatch.setenv("DISTBP_REMOTE_PRIVATE", found.place)
        yield found


def fetched(url: str) -> bytes:
    (file,) = find_files(TableFiles(path=url), Path())
    return file.path.read_bytes()


def kept(folder: Path) -> list[Path]:
    place = folder / "cache" / "remote"
    return sorted(place.iterdir()) if place.exists() else []


@pytest.mark.parametrize(
    "name", ["h.csv", "h.csv.gz", "h.tsv", "h.parquet", "h.feather", "h.arrow", "h.jsonl"]
)
def test_the_same_bits_as_a_file_here(name: str, site: Site, tmp_path: Path) -> None:
    path = write(houses(), tmp_path / name)
    site.pages[f"/a/{name}?token=x"] = Page(path.read_bytes())
    site.pages["/empty.csv?token=x"] = Page(b"a,price\n")
    with pytest.raises(
        DataError, match=r"/empty\.csv: the table has columns, but no rows$"
    ):  # tells no secret
        open_splits(job(site.url("/empty.csv?token=x")), tmp_path)
    here = train(job(path), output=tmp_path / "here")
    there = train(job(site.url(f"/a/{name}?token=x")), output=tmp_path / "there")
    assert there.params_sha256 == here.params_sha256
    assert site.headers[0]["Accept-Encoding"] == "identity"


def test_over_https_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography")
    context, trusted = certificate(tmp_path)
    table = write(houses(), tmp_path / "h.csv").read_bytes()
    with serving(context) as site:
        monkeypatch.setenv("DISTBP_REMOTE", "https")
        monkeypatch.setenv("DISTBP_REMOTE_PRIVATE", site.place)
        site.pages["/h.csv"] = Page(table, headers={"ETag": '"1"'})
        with pytest.raises(DataError, match=r"h.csv: cannot be reached \(self-signed certificate\)"):
            fetched(site.url("/h.csv"))
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        run = CliRunner()
        shown = run.invoke(group, ["data", "describe", site.url("/h.csv"), "--target", "price"])
        assert shown.exit_code == 0, shown.output
        assert f"{site.url('/h.csv')}: 300 rows, 7 columns" in shown.output
        monkeypatch.chdir(tmp_path)
        made = run.invoke(
            group, ["data", "describe", site.url("/h.csv"), "--target", "price", "--write-job", "job.yaml"]
        )
        assert made.exit_code == 0, made.output
        assert f"path: '{site.url('/h.csv')}'" in (tmp_path / "job.yaml").read_text()
        asked = ["train", site.url("/h.csv"), "--target", "price", "--output", "run", "--set", "epochs=1"]
        trained = run.invoke(group, asked)
        assert trained.exit_code == 0, trained.output
        predicted = run.invoke(group, ["predict", "run", site.url("/h.csv")])
        assert predicted.exit_code == 0, predicted.output
        assert len(predicted.output.splitlines()) == 301
        evaluated = run.invoke(group, ["evaluate", "run", site.url("/h.csv"), "--json"])
        assert evaluated.exit_code == 0, evaluated.output
        nameless = run.invoke(group, ["train", site.url("/h.csv")])
        assert "to train on a table, name its target" in nameless.output


@pytest.mark.parametrize(
    ("listed", "url", "said"),
    [
        (
            "",
            "https://example.org/a.csv?key=secret",
            "https://example.org/a.csv: this address may not be followed here. Who runs distbp may set"
            " DISTBP_REMOTE=https (or https://example.org); or download the file, and name that",
        ),
        (
            "s3, https://data.example.org",
            "https://data.example.org.evil.net/a.csv",
            "https://data.example.org.evil.net/a.csv: this address may not be followed here: DISTBP_REMOTE"
            " allows s3, https://data.example.org. Who runs distbp may add https://data.example.org.evil.net"
            " to it; or download",
        ),
        ("https://data.example.org", "https://data.example.org:444/a.csv", "may not be followed here"),
        ("https://data.example.org/public", "https://data.example.org/publican/a.csv", "may not be followed"),
        ("https", "http://example.org/a.csv", "may not be followed here"),
        ("s3://ours/public", "s3://ours/private/a.csv", "may not be followed here"),
        ("s3://ours/public", "s3://ours/public%2fa.csv", "may not be followed here"),
        ("https", "https://example.org/public/../a.csv", "'..' is not allowed in an address"),
        ("https", "https://example.org/public/%2e%2e/a.csv", "'..' is not allowed in an address"),
        ("https", "https://example.org/public/..%5ca.csv", "'..' is not allowed in an address"),
        ("https", "https://example.org/public/..;/a.csv", "'..' is not allowed in an address"),
        ("https", "https://me:secret@example.org/a.csv", "may not hold a name or password"),
        (
            "https",
            "https://me:secret@example.org:x/a.csv",
            "https://example.org:x/a.csv: is not an address; write",
        ),
        ("https", "https://example.org/../a.csv?key=secret", "https://example.org/../a.csv: '..' is not"),
        ("https", "ftp://me:secret@example.org/a?secret", "ftp://example.org/a: data is read from https"),
        ("https", "https://example.org/a b.csv", "an address has no blanks"),
        ("https", "https://example.org/a.csv#x", "an address of data has no '#'"),
        ("https", "https:///a.csv", "names no host; write https://host/file"),
        ("https", "https://example.org:x/a.csv", "is not an address; write https://host/file"),
        ("https", "https://example.org/*.csv", "name one file: a web server does not list what it has"),
        ("https", "ftp://example.org/a.csv", "data is read from https, http, s3 and gs, not from 'ftp'"),
        ("https", "file:///etc/passwd", "data is read from https, http, s3 and gs, not from 'file'"),
        (
            "s3",
            "s3://bucket/a.csv?endpoint_url=http://169.254.169.254",
            "options such as endpoint_url are not part of an address; who runs distbp sets them up for s3fs",
        ),
        ("s3", "s3://a@b/a.csv", "may not hold a name or password"),
        ("s3", "s3://10.0.0.1:9000/a.csv", "'10.0.0.1:9000' is not a bucket; write s3://bucket/file"),
    ],
)
def test_addresses_that_are_not_followed(
    listed: str, url: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTBP_REMOTE", listed)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("asked the network"))
    for confined in (False, True):
        with pytest.raises(DataError) as caught:
            find_files(TableFiles(path=url), Path(), confined)
        assert said in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("listed", "url"),
    [
        ("https", "https://EXAMPLE.org/a.csv"),
        (" s3 , https:// ", "https://example.org:8443/a.csv"),
        ("https://example.org/public/", "https://example.org:443/public/a.csv?x=..%2f"),
        ("http://[::1]:80/a", "http://[::1]/a/b.csv"),
        ("gs://our-bucket", "gs://our-bucket/a/*.parquet"),
    ],
)
def test_addresses_that_are(listed: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_REMOTE", listed)
    assert allowed(url).path
    assert is_address(url)
    assert not is_address("dataset:ds_1/a.csv")


@pytest.mark.parametrize(
    ("one", "why"),
    [
        ("ftp", "ftp: data is read from https, http, s3 and gs, not from ''"),
        ("ftp://ours", "ftp://ours: data is read from https, http, s3 and gs, not from 'ftp'"),
        ("s3:///public", "s3:///public: '' is not a bucket; write s3://bucket/file"),
        ("https:///example.org", "https:///example.org: names no host; write https://host/file"),
        ("https://:8443/x", "https://:8443/x: names no host; write https://host/file"),
        ("https:/example.org", "https:/example.org: names no host; write https://host/file"),
        ("https://example.org:x", "https://example.org:x: is not an address; write https://host/file"),
        ("https://example.org/a?key=secret", "https://example.org/a: a place has no '?'"),
        ("https://me:secret@example.org", "https://example.org: an address may not hold a name or password"),
        ("https://example.org/a/../b", "https://example.org/a/../b: '..' is not allowed"),
        ("https://a.org https://b.org", "https://a.org https://b.org: an address has no blanks"),
    ],
)
def test_a_setting_that_names_nothing(one: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_REMOTE", f"https://data.example.org, {one}")
    with pytest.raises(SettingsError) as caught:
        allowed("https://example.net/a.csv")
    assert str(caught.value).startswith(
        f"DISTBP_REMOTE names {why.partition(': ')[0]!r}, but takes https, http, s3 and gs, alone or with a"
        f" place (s3://our-bucket/public), with commas between ({why}"
    )
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1",
        "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::",
        "2001:db8::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "nowhere",
    ],
)  # fmt: skip
def test_what_is_not_public(text: str) -> None:
    assert not is_public(text)


@pytest.mark.parametrize(
    "text", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_what_is_public(text: str) -> None:
    assert is_public(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001"])
def test_a_host_of_this_machine_is_not_asked(
    host: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISTBP_REMOTE_PRIVATE")
    place = f"{host}:{site.place.partition(':')[2]}"
    with pytest.raises(HostileFileError) as caught:
        open_splits(job(f"http://{place}/a.csv"), tmp_path, confined=True)
    assert str(caught.value) == (
        f"http://{place}/a.csv: the host is not on the public internet. Who runs distbp may allow it:"
        f" DISTBP_REMOTE_PRIVATE={place}"
    )
    assert site.asked == []


def test_the_connection_is_made_to_what_was_checked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that means a public machine first, and this one a moment later; and one that means both."""
    port = int(site.place.partition(":")[2])
    here = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
    public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", port))
    answers = [[public], [here]]
    asked: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers.pop(0))
    monkeypatch.setattr(web, "_plugged", lambda address, family, place: asked.append(place) or refuse())

    def refuse() -> socket.socket:
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(DataError, match=r"cannot be reached \(Connection refused\)"):
        fetched(f"http://rebinding.example:{port}/a.csv")
    assert asked == [("8.8.8.8", port)]
    assert answers == [[here]]
    answers[:] = [[public, here]]
    with pytest.raises(HostileFileError, match="the host is not on the public internet"):
        fetched(f"http://both.example:{port}/a.csv")
    assert len(asked) == 1
    assert site.asked == []


def test_redirects_are_checked_one_by_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/b.csv"] = Page(b"a,price\n1,2\n")
    site.pages["/a"] = Page(status=302, headers={"Location": "/b.csv"})
    assert fetched(site.url("/a")) == b"a,price\n1,2\n"
    port = site.place.partition(":")[2]
    for to, said in {
        f"http://localhost:{port}/b.csv": f"leads to http://localhost:{port}/b.csv: the host is not on the",
        "file:///etc/passwd": "leads to 'file:///etc/passwd': data is read from https, http, s3 and gs",
        "s3://bucket/a.csv": "leads to s3://bucket/a.csv: this address may not be followed here",
        "https://example.org/a.csv": "leads to https://example.org/a.csv: this address may not be followed",
        site.url("/loop"): "leads on more than 5 times",
        "ftp://me:secret@example.org/a?secret": "leads to 'ftp://example.org/a': data is read from https",
        "": "/loop: the server answers 302, and does not say where the file is now; check the address",
    }.items():
        site.pages["/loop"] = Page(status=302, headers={"Location": to})
        with pytest.raises(DataError) as caught:
            fetched(site.url("/loop"))
        assert said in str(caught.value)
        assert "secret" not in str(caught.value)
    assert site.asked.count("/b.csv") == 1


def test_a_redirect_does_not_end_encryption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography")
    context, trusted = certificate(tmp_path)
    with serving(context) as site, serving() as plain:
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        monkeypatch.setenv("DISTBP_REMOTE", "https,http")
        monkeypatch.setenv("DISTBP_REMOTE_PRIVATE", f"{site.place}, {plain.place}")
        site.pages["/a.csv"] = Page(status=307, headers={"Location": plain.url("/a.csv")})
        with pytest.raises(HostileFileError, match=r"leads to http://.*/a.csv, which is not encrypted"):
            fetched(site.url("/a.csv"))
        assert plain.asked == []


BODY = b"a,price\n" + b"1,2\n" * 100


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (Page(status=404), "the server answers 404 Not Found; check the address"),
        (Page(status=403), "answers 403 Forbidden; an address is needed that anyone may read"),
        (Page(status=503), "answers 503 Service Unavailable; try again later"),
        (Page(BODY, length=5000), "cut off after 408 bytes (the connection ended); nothing is kept of it"),
        (Page(b""), "the file is empty; check the address"),
        (Page(BODY, length=""), "the server does not say where the file ends, so a part of it would"),
        (Page(BODY, headers={"Content-Encoding": "br"}), "the server packs the file on its way (br)"),
        (
            Page(b"5\r\nabc", headers={"Transfer-Encoding": "chunked"}, length=""),
            "cut off after 3 bytes (IncompleteRead(0 bytes read",
        ),
        (Page(BODY, length=2**50), "bytes; at most 1,099,511,627,776 are allowed. If you trust it, raise"),
    ],
)
def test_what_cannot_be_had(page: Page, said: str, site: Site, tmp_path: Path) -> None:
    site.pages["/t.csv"] = page
    with pytest.raises(DataError) as caught:
        fetched(site.url("/t.csv"))
    assert str(caught.value).startswith(f"{site.url('/t.csv')}: ")
    assert said in str(caught.value)
    assert kept(tmp_path) == []


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_REMOTE", "http")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        monkeypatch.setenv("DISTBP_REMOTE_PRIVATE", f"127.0.0.1:{port}")
        with pytest.raises(DataError, match=r"a.csv: cannot be reached \(Connection refused\); check the"):
            fetched(f"http://127.0.0.1:{port}/a.csv")
    with pytest.raises(DataError, match=r"a.csv: the host is not known; check the address"):
        fetched("http://nowhere.invalid/a.csv")


def test_no_more_than_there_may_be(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = b"198\r\n" + BODY + b"\r\n0\r\n\r\n"
    site.pages["/t.csv"] = Page(chunks, headers={"Transfer-Encoding": "chunked"}, length="")
    monkeypatch.setenv("DISTBP_MAX_FILE_BYTES", "100")
    with pytest.raises(HostileFileError, match="sends more than the 100 bytes that DISTBP_REMOTE_BYTES and"):
        fetched(site.url("/t.csv"))
    monkeypatch.setenv("DISTBP_MAX_FILE_BYTES", "1000")
    monkeypatch.setenv("DISTBP_REMOTE_BYTES", "1000")
    first = fetched(site.url("/t.csv"))
    assert first == BODY
    for name in ("/u.csv", "/v.csv"):
        site.pages[name] = Page(BODY, headers={"ETag": f'"{name}"'})
    fetched(site.url("/u.csv"))
    with pytest.raises(
        DataError, match=r"v.csv: there is no room for its 408 bytes: fetched files may fill 1,000"
    ):
        fetched(site.url("/v.csv"))  # the others may still be read
    monkeypatch.setattr(fetching, "_USED_NOW_S", 0.0)
    fetched(site.url("/v.csv"))
    assert len(kept(tmp_path)) == 2
    monkeypatch.setenv("DISTBP_CACHE", "none")
    with pytest.raises(DataError, match=r"v.csv: is kept on this machine, but DISTBP_CACHE is none"):
        fetched(site.url("/v.csv"))


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"ETag": '"one"'}, True),
        ({"Last-Modified": LONG_AGO, "Date": NOW}, True),
        ({"ETag": 'W/"one"'}, False),  # as a cache says it, not byte for byte
        ({"Last-Modified": NOW, "Date": NOW}, False),  # it may have changed again in the same second
        ({}, False),
    ],
)
def test_nothing_old_is_used(
    headers: dict[str, str], told: bool, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, written = site.url("/t.csv"), []
    durable = fetching.write_durable
    monkeypatch.setattr(fetching, "write_durable", lambda *of: written.append(of) or durable(*of))
    site.pages["/t.csv"] = Page(BODY, headers=headers)
    marks = [find_files(TableFiles(path=url), Path())[0].mark for _ in range(2)]
    assert marks[0] == marks[1]  # so a prepared table is used again, too
    assert len(written) == (1 if told else 2)
    other = BODY.replace(b"1,2\n", b"1,3\n")
    changed = {"ETag": '"two"'} if "ETag" in headers else headers | ({"Last-Modified": NOW} if told else {})
    site.pages["/t.csv"] = Page(other, headers=changed)
    assert fetched(url) == other
    assert len(kept(tmp_path)) == 2


def test_what_is_lost_is_fetched_again(site: Site, tmp_path: Path) -> None:
    site.pages["/t.csv.gz"] = Page(BODY, headers={"ETag": '"1"'})
    (file,) = find_files(TableFiles(path=site.url("/t.csv.gz")), Path())
    file.path.chmod(0o600)
    file.path.write_bytes(BODY[:50])
    assert fetched(site.url("/t.csv.gz")) == BODY


def test_a_prepared_table_is_used_while_the_file_is_the_same(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_CELLS_BYTES", 0)  # prepared tables are kept
    monkeypatch.setattr(digest, "_SETTLED_NS", 0)
    first, second = (write(houses(300, seed), tmp_path / f"{seed}.csv").read_bytes() for seed in (1, 2))
    url = site.url("/h.csv")
    site.pages["/h.csv"] = Page(first, headers={"ETag": '"1"'})
    results = [train(job(url), output=tmp_path / f"run{n}").params_sha256 for n in range(2)]
    assert results[0] == results[1]
    assert len(list((tmp_path / "cache" / "tables").iterdir())) == 1
    site.pages["/h.csv"] = Page(second, headers={"ETag": '"2"'})
    assert train(job(url), output=tmp_path / "other").params_sha256 != results[0]


def test_only_tables_are_fetched(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x.npy: only tables \(format: table\) are fetched from an address"):
        load(Npy(inputs=site.url("/x.npy?key=secret")), tmp_path)
    with pytest.raises(JobError, match=r"x.npz: only a table is fetched, alone; download it, and name the"):
        source_of([site.url("/x.npz?key=secret")], with_targets=True)


def test_a_file_that_comes_too_slowly(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/t.csv?key=secret"] = Page(BODY)
    monkeypatch.setenv("DISTBP_REMOTE_DEADLINE_S", "60")
    monkeypatch.setattr(fetching, "monotonic", itertools.count(0, 61).__next__)
    with pytest.raises(DataError) as caught:
        fetched(site.url("/t.csv?key=secret"))
    assert str(caught.value) == (
        f"{site.url('/t.csv')}: 408 bytes came in 60 seconds, and no more time is given; download the"
        " file, and name that, or raise DISTBP_REMOTE_DEADLINE_S"
    )
    assert kept(tmp_path) == []


@pytest.mark.parametrize("at", ["HTTP://{}/year=2024/t.csv", "http://{}/year=2024/t.csv?x=/year=1/"])
def test_a_file_of_the_web_has_no_columns_from_its_folders(at: str, site: Site) -> None:
    site.pages["/year=2024/t.csv"] = site.pages["/year=2024/t.csv?x=/year=1/"] = Page(BODY)
    assert open_raw(TableFiles(path=at.format(site.place)), Path()).names == ("a", "price")


def test_names_of_packed_files_in_any_case(site: Site, tmp_path: Path) -> None:
    for name in ("H.CSV.GZ", "h.of-today.Gz"):
        site.pages[f"/{name}"] = Page(gzip.compress(BODY))
        (tmp_path / name).write_bytes(gzip.compress(BODY))
        for path in (name, site.url(f"/{name}")):
            assert open_raw(TableFiles(path=path), tmp_path).names == ("a", "price")


def test_an_address_on_the_command_line_is_taken_as_it_is(site: Site, tmp_path: Path) -> None:
    table = write(houses(), tmp_path / "h.csv").read_bytes()
    site.pages["/a//h.csv?of=http://x"] = Page(table)
    url = site.url("/a//h.csv?of=http://x")
    asked = ["train", url, "--target", "price", "--output", str(tmp_path / "run"), "--set", "epochs=1"]
    done = CliRunner().invoke(group, asked)
    assert done.exit_code == 0, done.output
    assert set(site.asked) == {"/a//h.csv?of=http://x"}


def test_what_else_lies_in_the_cache(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/t.csv"], site.pages["/u.csv"] = Page(BODY), Page(BODY, headers={"ETag": '"1"'})
    monkeypatch.setenv("DISTBP_REMOTE_BYTES", "1000")
    fetched(site.url("/t.csv"))
    stray = tmp_path / "cache" / "remote" / "notes.txt"
    stray.write_bytes(b"x" * 500)
    os.utime(stray, (0, 0))
    fetched(site.url("/u.csv"))
    assert not stray.exists()  # it counts, and is what was used longest ago
    assert len(kept(tmp_path)) == 2


def test_progress_is_shown_on_a_terminal_alone(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_TOLD_BYTES", 100)
    site.pages["/t.csv"] = Page(BODY)
    fetched(site.url("/t.csv"))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    fetched(site.url("/t.csv"))
    assert re.fullmatch(r"\rfetching http://\S+/t.csv: 0 of 0 MB\n", capsys.readouterr().err)
