"""The client against a service that hangs up, is away, refuses or lies; what it sends, and what it shows."""

from __future__ import annotations

import hashlib
import io
import json
import re
import ssl
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import distbp
from distbp.client import arguments, uploads
from distbp.client.handle import JobHandle
from distbp.client.measured import all_rows
from distbp.client.models import fetch_model
from distbp.client.service import Service, connect
from distbp.client.settings_file import Access
from distbp.client.streams import Message, follow, parse
from distbp.client.telling import Translator
from distbp.client.transport import Transport, _unconnected
from distbp.core.errors import JobError, ModelError, RemoteError, UnreachableError
from distbp.data.formats import from_arrays
from distbp.run import events
from distbp.run.card import card
from distbp.run.measured import Metrics

JOB = distbp.TrainingJob(
    data={"train": {"format": "blobs"}},
    model={"layers": [{"type": "dense", "units": 3}]},
    loss="softmax_cross_entropy",
)
HANG_UP = object()
Answers = Callable[["Asked"], Any]


class Asked:
    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self.method, self.path = handler.command, handler.path
        self.headers = handler.headers
        self.body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))


class Script:
    """A service that answers as told: (status, value), bytes of a stream that then breaks, or HANG_UP."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: Iterator[Any] | Answers = iter(())
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = Asked(self)
                outer.asked.append(asked)
                given = outer.answers(asked) if callable(outer.answers) else next(outer.answers)
                if given is HANG_UP:
                    self.close_connection = True
                    return
                status, value = given if isinstance(given, tuple) else (200, given)
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                if isinstance(given, tuple):
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *about: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def script() -> Iterator[Script]:
    found = Script()
    yield found
    found.close()


class Time:
    """Passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def transport(url: str, token: str = "dbp_x", patience_s: float = 60.0) -> Transport:
    time = Time()
    return Transport(Access(url, token), patience_s=patience_s, clock=time.clock, sleep=time.sleep)


def problem(code: str, message: str, **more: Any) -> dict[str, Any]:
    return {"code": code, "message": message, **more}


# Asking ---------------------------------------------------------------------------------------------------


def test_a_submit_is_sent_again_under_one_key(script: Script) -> None:
    """The answer is lost, then the service is busy, then it says yes: one key, one job."""
    script.answers = iter(
        [(200, {"status": "ready"}), HANG_UP, (503, problem("unavailable", "busy")), (202, {"id": "job_1"})]
    )
    with Service(transport(script.url)) as service:
        service.ready()
        assert service.submit(JOB).id == "job_1"
    sent = script.asked[1:]
    assert len(sent) == 3
    assert len({asked.headers["Idempotency-Key"] for asked in sent}) == 1
    assert len({asked.body for asked in sent}) == 1
    assert sent[0].headers["Authorization"] == "Bearer dbp_x"
    assert json.loads(sent[0].body)["job"]["epochs"] == JOB.epochs


def test_what_must_not_be_done_twice_is_not(script: Script) -> None:
    script.answers = iter([(200, {}), HANG_UP])
    asking = transport(script.url)
    asking.call("GET", "/readyz")
    with pytest.raises(UnreachableError, match=rf"^the service at {script.url} hung up; try again$"):
        asking.call("POST", "/v1/tokens", json={}, repeatable=False)
    assert len(script.asked) == 2


def test_patience_ends(script: Script) -> None:
    script.answers = lambda asked: (503, problem("unavailable", "the database does not answer; try again"))
    with pytest.raises(RemoteError, match=r"^the database does not answer; try again$") as caught:
        transport(script.url, patience_s=10).call("GET", "/v1/jobs")
    assert (caught.value.code, caught.value.status) == ("unavailable", 503)
    assert 5 < len(script.asked) < 50


def test_tls_that_fails_is_not_called_a_service_that_is_away(script: Script) -> None:
    """Who asks for TLS where there is none, and whose own authority signed a certificate."""
    url = script.url.replace("http:", "https:")
    with pytest.raises(
        UnreachableError, match=rf"^what answers at {url} does not speak TLS \(.+\); set DISTBP_URL"
    ):
        transport(url).call("GET", "/v1/jobs")
    error = OSError("no connection")
    error.__cause__ = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] ...")
    error.__cause__.verify_message = "self-signed certificate"
    assert _unconnected("https://api.example.org", error) == (
        "the certificate of https://api.example.org is not trusted here (self-signed certificate). Where your"
        " own authority has signed it, set SSL_CERT_FILE to the file with that one's certificate"
    )


def test_a_service_that_never_answered_is_not_waited_for() -> None:
    script = Script()
    script.close()
    time = Time()
    asking = Transport(Access(script.url, ""), clock=time.clock, sleep=time.sleep)
    text = (
        rf"^no service answers at {script.url}\. Start one with `distbp serve`, or set DISTBP_URL to where "
    )
    with pytest.raises(UnreachableError, match=text):
        asking.call("GET", "/v1/jobs")
    with pytest.raises(UnreachableError, match=text):
        next(follow(asking, "/v1/jobs/job_1/events:stream"))
    assert time.now == 0


@pytest.mark.parametrize(
    ("status", "body", "token", "kind", "text"),
    [
        (404, problem("not_found", "there is no job job_1"), "t", RemoteError, "there is no job job_1"),
        (
            401,
            problem("unauthorized", "this token opens nothing: it is wrong, revoked or expired"),
            "t",
            RemoteError,
            "this token opens nothing: it is wrong, revoked or expired. Set DISTBP_TOKEN to one that does"
            " (`distbp token create` makes them)",
        ),
        (
            401,
            problem("unauthorized", "give a token"),
            "",
            RemoteError,
            "the service at URL wants a token: set DISTBP_TOKEN",
        ),
        (
            422,
            problem(
                "invalid_job",
                "...",
                faults=[
                    {"path": "epochs", "message": "must be 1 or more, not 0"},
                    {"path": "", "message": "x"},
                ],
            ),
            "t",
            JobError,
            "the job has 2 faults:\n  epochs: must be 1 or more, not 0\n  x",
        ),
        (
            404,
            b"<html>not found</html>",
            "t",
            RemoteError,
            "what answers at URL is not a distbp service (HTTP status 404); check DISTBP_URL",
        ),
        (
            200,
            b"<html>hello</html>",
            "t",
            RemoteError,
            "what answers at URL is not a distbp service (HTTP status 200); check DISTBP_URL",
        ),
    ],
)
def test_refusals_in_words(
    script: Script, status: int, body: Any, token: str, kind: type[Exception], text: str
) -> None:
    script.answers = iter([(status, body)])
    with pytest.raises(kind) as caught:
        transport(script.url, token).call("GET", "/v1/jobs/job_1")
    assert str(caught.value) == text.replace(" URL", f" {script.url}")


# Streams --------------------------------------------------------------------------------------------------


def message(number: int, data: Any = None) -> bytes:
    return (
        f"id: {number}\nevent: event\ndata: {json.dumps(data if data else {'number': number})}\n\n".encode()
    )


END = b'event: end\ndata: {"state":"completed"}\n\n'


@given(st.data())
def test_a_stream_is_read_however_it_is_cut(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text(max_size=20), max_size=5))
    whole = b"retry: 1000\n\n: still here\n\n"
    for number, text in enumerate(texts, 1):
        shown = json.dumps({"text": text}, ensure_ascii=False).encode("utf-8", "surrogatepass")
        whole += f"id: {number}\nevent: log\ndata: ".encode() + shown + b"\n\n"
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    found = [one for one in parse([*pieces, b"id: 99\nevent: log\ndata: {"]) if one is not None]
    assert found == [Message("log", {"text": text}, n) for n, text in enumerate(texts, 1)]


def test_a_broken_stream_goes_on_after_the_last_number(script: Script) -> None:
    """It breaks in the middle of a message, repeats itself, is refused for a moment: each number once."""
    script.answers = iter(
        [
            message(1) + message(2) + message(3)[:-5],
            HANG_UP,
            (503, problem("unavailable", "starting")),
            message(2) + message(3) + message(4),
            message(5) + END,
        ]
    )
    found = list(follow(transport(script.url), "/v1/jobs/job_1/events:stream"))
    assert [one.number for one in found] == [1, 2, 3, 4, 5, 0]
    assert [asked.headers["Last-Event-ID"] for asked in script.asked] == [None, "2", "2", "2", "4"]


def test_a_stream_that_may_not_be_read_any_more_ends(script: Script) -> None:
    script.answers = iter([message(1), (401, problem("unauthorized", "this token opens nothing"))])
    stream = follow(transport(script.url), "/v1/jobs/job_1/events:stream")
    assert next(stream).number == 1
    with pytest.raises(RemoteError, match=r"^this token opens nothing\. Set DISTBP_TOKEN"):
        next(stream)


def test_waiting_has_an_end(script: Script) -> None:
    script.answers = lambda asked: HANG_UP if len(script.asked) > 1 else message(1)
    handle = JobHandle(transport(script.url), "job_1")
    with pytest.raises(TimeoutError, match=r"^job_1 is not done after 7 s; it goes on$"):
        handle.wait(timeout_s=7)


# What was measured, and what is shown ---------------------------------------------------------------------


@given(st.lists(st.integers(0, 400), unique=True, max_size=60), st.integers(2, 9))
def test_all_rows_come_though_an_answer_holds_few(steps: list[int], most: int) -> None:
    rows = sorted(steps)

    def ask(start: int, stop: int | None, points: int) -> Any:
        wanted = [s for s in rows if s >= start and (stop is None or s <= stop)]
        chosen = wanted if len(wanted) <= most else [wanted[0], *wanted[1 : most - 1], wanted[-1]]
        return {"items": [{"step": s, "data": {"step": s}} for s in chosen], "total": len(wanted)}

    assert [row["step"] for row in all_rows(ask)] == rows


def test_metrics_are_columns() -> None:
    metrics = Metrics(
        [
            {"step": 2, "train_loss": 0.5, "health": {}, "flag": True},
            {"step": 4, "train_loss": None, "epoch": 2},
        ]
    )
    assert list(metrics) == ["step", "train_loss", "epoch"]
    assert metrics["step"].dtype == np.int64
    np.testing.assert_array_equal(metrics["train_loss"], [0.5, np.nan])
    assert repr(metrics) == "Metrics(2 rows: step, train_loss, epoch)"
    with pytest.raises(KeyError, match="'loss' was not measured; there are: step, train_loss, epoch"):
        metrics["loss"]


def test_the_card_is_safe_html_with_curves() -> None:
    status = {
        "id": "job_1",
        "name": "<script>alert(1)</script>",
        "state": "failed",
        "step": 3,
        "attempt": 2,
        "progress": {"step": 3, "total_steps": 4},
        "error": {"message": "NaN in <b>layer</b>"},
        "metrics": None,
    }
    rows = [{"step": n, "train_loss": 1 / n, "validation_accuracy": 0.5} for n in range(1, 1001)]
    html = card(status, Metrics(rows))
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "NaN in &lt;b&gt;layer&lt;/b&gt;" in html
    assert "width:75.0%" in html and "step 3 of 4, attempt 2" in html
    assert html.count("<polyline") == 2
    assert 'aria-label="train loss (logarithmic) by step"' in html  # from 1 to 0.001
    assert len(html) < 12_000
    assert "<svg" not in card({**status, "progress": None}, Metrics([]))


def test_the_card_draws_every_metric_and_says_what_is_wrong() -> None:
    status = {"id": "job_1", "name": "prices", "state": "completed", "step": 9, "attempt": 1, "metrics": None}
    names = ("train_loss", "validation_loss", "validation_rmse", "validation_r2", "validation_auc")
    rows = [{"step": n, "learning_rate": 0.1, **dict.fromkeys(names, n / 10)} for n in range(1, 10)]
    html = card(
        {**status, "result": {"unhealthy": {"diverged": "the loss <b>ended</b> high"}}}, Metrics(rows)
    )
    labels = re.findall(r'aria-label="([^"]*) by step"', html)
    assert labels == ["train loss, validation loss", "validation r2", "validation auc", "validation rmse"]
    assert "the loss &lt;b&gt;ended&lt;/b&gt; high" in html


def test_what_a_service_tells_becomes_events() -> None:
    asked: list[int] = []

    def rows(first: int) -> dict[int, dict[str, Any]]:
        asked.append(first)
        return {step: {"step": step, "train_loss": 1.0 / step} for step in range(first, 31, 10)}

    translate = Translator(rows)

    def tell(kind: str, **data: Any) -> list[events.Event]:
        return list(translate(Message("event", {"kind": kind, "attempt": 1, "data": data}, 1)))

    ended = {"samples_per_second": 1.0, "seconds": 0.1, "improved": True, "new_field": 1}
    for epoch in (1, 2, 3):
        (told,) = tell("epoch_ended", epoch=epoch, step=10 * epoch, **ended)
        assert isinstance(told, events.EpochEnded)
        assert told.metrics == {"step": 10 * epoch, "train_loss": 0.1 / epoch}
    assert asked == [10]  # one question for all that were there
    assert tell("state", to="recovering", reason="the runner's process ended without a report") == [
        events.StateChanged("recovering", "the runner's process ended without a report", 1)
    ]
    assert tell("a_kind_of_tomorrow", x=1) == []
    assert tell("checkpoint_saved", step=1) == []  # of another version: a field is missing


# Data and models ------------------------------------------------------------------------------------------


def test_data_is_packed_alike_and_sent_once(script: Script) -> None:
    x, y = np.arange(12.0).reshape(6, 2), np.array([0, 1] * 3)
    kept: dict[str, bytes] = {}

    def answer(asked: Asked) -> Any:
        if asked.method == "GET":
            found = asked.path.removeprefix("/v1/datasets/") in kept
            return (200, {}) if found else (404, problem("not_found", "there is no such dataset"))
        if asked.path.startswith("/v1/datasets?"):
            kept[f"ds_{hashlib.sha256(asked.body).hexdigest()}"] = asked.body
            return 201, {}
        return 202, {"id": "job_1"}

    script.answers = answer
    job = JOB.replace(data={"train": None}, name="round one")
    with Service(transport(script.url)) as service:
        for inputs in (x, np.asfortranarray(x) + 0, x.copy()):
            service.submit(job, data=(np.ascontiguousarray(inputs), y))
    sent = [asked for asked in script.asked if asked.path.startswith("/v1/datasets?")]
    assert len(sent) == 1
    assert parse_qs(urlsplit(sent[0].path).query)["name"] == ["round one train"]
    (dataset,) = kept
    with np.load(io.BytesIO(kept[dataset])) as archive:
        np.testing.assert_array_equal(archive["inputs"], x)
        np.testing.assert_array_equal(archive["targets"], y)
    submitted = json.loads(script.asked[-1].body)["job"]["data"]["train"]
    assert submitted["path"] == f"dataset:{dataset}"


def test_arrays_that_do_not_fit_are_not_sent(script: Script) -> None:
    job = JOB.replace(data={"train": None})
    with Service(transport(script.url)) as service:
        with pytest.raises(JobError, match="layers"):
            service.submit(job, data=(np.zeros((4, 2)), np.array([0, 1, 2, 3])))
        with pytest.raises(distbp.DistbpError, match="3 targets for the 4 rows"):
            service.submit(job, data=(np.zeros((4, 2)), np.array([0, 1, 2])))
    assert script.asked == []


def test_packing_keeps_dtypes() -> None:
    table = from_arrays(np.zeros((3, 2), np.uint8), np.zeros(3), np.ones(3))
    file = io.BytesIO()
    uploads.pack(table, file)
    with np.load(io.BytesIO(file.getvalue())) as archive:
        assert {name: archive[name].dtype.name for name in archive} == {
            "inputs": "uint8",
            "targets": "float64",
            "weights": "float64",
        }


def test_labels_and_names_of_columns_come_with_the_data(script: Script) -> None:
    """What was sent opens to what was given: text labels, and columns by name."""
    table = replace(from_arrays(np.zeros((3, 2)), ["b", "a", "b"]), columns=("age", 7))
    file = io.BytesIO()
    uploads.pack(table, file)
    with np.load(io.BytesIO(file.getvalue())) as archive:
        assert archive["targets"].tolist() == ["b", "a", "b"]
        assert archive["columns"].tolist() == ["age", "7"]
    script.answers = lambda asked: (
        (404, problem("not_found", "no")) if asked.method == "GET" else (202, {"id": "j"})
    )
    two = {"layers": [{"type": "dense", "units": 2}]}
    job = JOB.replace(data={"train": None}, model=two, class_weight={"a": 2})
    frame = Frame(np.zeros((4, 2)), ["age", "pay"])
    with Service(transport(script.url)) as service:
        service.submit(job, data=(frame, ["b", "a", "b", "a"]))
        sent = json.loads(script.asked[-1].body)["job"]
        assert sent["data"]["train"]["columns"] == "columns"
        assert sent["class_weight"] == {"a": 2}
        with pytest.raises(
            JobError, match=r"class_weight.a: is not a class of the training set, which has b, c"
        ):
            service.submit(job, data=(frame, ["b", "c", "b", "c"]))
        with pytest.raises(distbp.DistbpError, match="all rows of the train set weigh 0 in float32"):
            service.submit(job, data=(frame, ["b", "a", "b", "a"], np.full(4, 1e-60)))


class Frame:
    """What distbp asks of a frame of numbers."""

    def __init__(self, values: np.ndarray, columns: list[str]) -> None:
        self.values, self.columns = values, columns

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.values


def archive_of(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def test_a_model_is_checked(script: Script, tmp_path: Path) -> None:
    result = distbp.train(JOB.replace(epochs=1, workers=0), output=tmp_path / "run")
    files = {f"model/{p.name}": p.read_bytes() for p in (result.path / "model").iterdir()}
    good = archive_of(files)
    about = {"id": "mdl_1", "info": {"params_sha256": result.params_sha256}}
    asking = transport(script.url)
    script.answers = iter([(200, good)])
    folder = tmp_path / "kept"
    assert fetch_model(asking, about, folder).facts["params_sha256"] == result.params_sha256
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "weights.safetensors"]

    script.answers = iter([(200, good)])
    other = {"id": "mdl_1", "info": {"params_sha256": "0" * 64}}
    with pytest.raises(ModelError, match=r"^the model mdl_1 arrived with the parameters .*; fetch it again$"):
        fetch_model(asking, other)
    weights = bytearray(files["model/weights.safetensors"])
    weights[-1] ^= 1
    for bad, text in (
        (archive_of({**files, "model/weights.safetensors": bytes(weights)}), "does not have the SHA-256"),
        (archive_of({"model/model.json": files["model/model.json"]}), "what the service sent is not a model"),
        (archive_of({"../escape": b"x"}), "what the service sent is not a model"),
        (b"no archive", "what the service sent is not a model"),
    ):
        script.answers = iter([(200, bad)])
        with pytest.raises(ModelError, match=text):
            fetch_model(asking, about)
    assert not (tmp_path / "escape").exists()


@pytest.mark.parametrize(
    ("fields", "targets", "fault"),
    [
        ({"init_keeps": ["preparation"]}, ["a", "b", "a", "b"], ""),  # which alone would be classes 0 and 1
        ({"init_keeps": ["preparation"]}, ["a", "b", "a", "d"], "d is a class that the model does not have"),
        (
            {"init_keeps": ["optimizer"]},
            ["a", "b", "a", "b"],
            "has 3 outputs, but the labels are of 2 classes",
        ),
        ({"init_keeps": ["preparation"], "init": "model:mdl_2"}, ["a", "b", "a", "d"], ""),  # may not be read
        (
            {"init_keeps": ["preparation"], "init": "runs/1"},
            ["a", "b", "a", "d"],
            "",
        ),  # no model of a service
    ],
)
def test_data_is_checked_against_the_model_that_a_job_goes_on_with(
    script: Script, tmp_path: Path, fields: dict[str, Any], targets: list[str], fault: str
) -> None:
    x, job = np.arange(8.0).reshape(4, 2), JOB.replace(data={"train": None}, epochs=1, workers=0)
    result = distbp.train(job, data=(x, ["a", "b", "c", "b"]), output=tmp_path / "run")
    files = {f"model/{p.name}": p.read_bytes() for p in (result.path / "model").iterdir()}

    def answer(asked: Asked) -> Any:
        if asked.path == "/v1/models/mdl_1":
            return 200, {"id": "mdl_1", "info": {"params_sha256": result.params_sha256}}
        if asked.path == "/v1/models/mdl_1/download":
            return 200, archive_of(files)
        if asked.path == "/v1/models/mdl_2":
            return 403, problem("forbidden", "the token may not read")
        if asked.method == "GET":
            return 404, problem("not_found", "no")
        return 202, {"id": "job_1"}

    script.answers = answer
    later = job.replace(**{"init": "model:mdl_1", **fields})
    with Service(transport(script.url)) as service:
        if not fault:
            assert service.submit(later, data=(x, targets)).id == "job_1"
            return
        with pytest.raises(distbp.DistbpError, match=fault):
            service.submit(later, data=(x, targets))
    assert all(asked.method == "GET" for asked in script.asked)  # nothing was sent


# Imports --------------------------------------------------------------------------------------------------


def test_importing_distbp_needs_no_httpx_and_says_so_where_it_is_needed() -> None:
    code = (
        "import sys; sys.modules['httpx'] = None\n"
        "import distbp, distbp.cli.main\n"
        "submit = distbp.submit\n"
        "print([m for m in ('ray', 'rich', 'sqlalchemy', 'fastapi') if m in sys.modules])\n"
        "try: distbp.connect('http://127.0.0.1:1')\n"
        "except distbp.DistbpError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "[]\ntalking to a service needs httpx, which is not installed; run: pip install 'distbp[client]'\n"
    )


# What is given wrongly ----------------------------------------------------------------------------------

X, Y = np.zeros((4, 2), np.float32), np.zeros(4, np.int64)


class Named:
    """What distbp takes for a table with named columns."""

    __arrow_c_stream__ = None


@pytest.mark.parametrize(
    ("given", "param", "text"),
    [
        ({"key": "ü"}, "key", "1 to 200 printable characters of ASCII, without spaces, not 'ü'"),
        ({"key": ""}, "key", "1 to 200 printable characters of ASCII, without spaces, not ''"),
        ({"key": "a b\n"}, "key", "without spaces"),
        ({"key": 7}, "key", "without spaces, not 7"),
        ({"deadline_s": float("nan")}, "deadline_s", "seconds, more than 0 and at most 1e+09, not nan"),
        ({"deadline_s": float("inf")}, "deadline_s", "not inf"),
        ({"deadline_s": -1}, "deadline_s", "not -1"),
        ({"deadline_s": 0}, "deadline_s", "not 0"),
        ({"deadline_s": "60"}, "deadline_s", "not '60'"),
        ({"deadline_s": True}, "deadline_s", "not True"),
        ({"deadline_s": 10**400}, "deadline_s", "seconds, more than 0"),
        ({"priority": 101}, "priority", "a whole number from -100 to 100, not 101"),
        ({"priority": 1.5}, "priority", "not 1.5"),
        ({"priority": "high"}, "priority", "not 'high'"),
        ({"priority": None}, "priority", "not None"),
        ({"upload": "no"}, "upload", "True or False, not 'no'"),
        ({"folder": 3}, "folder", "a path, not 3"),
        ({"job": {"loss": "mse"}}, "job", "a TrainingJob, not {'loss': 'mse'}"),
        ({"data": X}, "data", "(inputs, targets) or (inputs, targets, weights), or a frame, not 'ndarray'"),
        ({"data": (X,)}, "data", "not without targets"),
        ({"data": (X, None)}, "data", "not without targets"),
        ({"data": (X, Y, None, Y)}, "data", "not 4 arrays"),
        ({"data": {"train": (X, Y), "validation": X}}, "data['validation']", "not 'ndarray'"),
        ({"data": {"train": (X, Y), "test": (X, None)}}, "data['test']", "not without targets"),
        ({"data": {"training": (X, Y)}}, "data", "by split, of train, validation, test, not 'training'"),
        (
            {"data": {"train": (X, Y), "test": Named()}},
            "data",
            "be frames alone or arrays alone",
        ),
        ({"url": 5}, "url", "an address, as http://host:8470, not 5"),
        ({"token": "dbp_ü"}, "token", "the text of a token, as dbp_..., not 'dbp_ü'"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value)[:20],
)
def test_what_is_wrong_is_refused_by_name_and_nothing_is_sent(
    script: Script, given: dict[str, Any], param: str, text: str
) -> None:
    given = {"job": JOB, "url": script.url, "token": "dbp_x", **given}
    with pytest.raises(RemoteError) as caught:
        distbp.submit(**given)
    assert (caught.value.param, caught.value.code) == (param, "invalid")
    assert str(caught.value).startswith(f"{param} must be ") and text in str(caught.value)
    assert not script.asked


def test_an_autoencoder_is_sent_without_targets() -> None:
    job = JOB.replace(data={"targets": "inputs"}, loss="mse")
    sent = arguments.data({"train": (X, None), "test": (X, None, Y)}, job)
    assert sent["train"] == (X, None) and sent["test"] == (X, None, Y)


def test_every_other_argument_is_checked_too(script: Script) -> None:
    service = Service(Transport(Access(script.url, "")))
    handle = JobHandle(service.transport, "job_01j9ze3k8xq2v5w7y0ab")
    for call, param in [
        (lambda: service.job("../tokens"), "job_id"),
        (lambda: service.job(None), "job_id"),  # type: ignore[arg-type]
        (lambda: service.jobs(states=("asleep",)), "states"),
        (lambda: service.jobs(states="failed"), "states"),  # type: ignore[arg-type]
        (lambda: service.jobs(name="ü"), "name"),
        (lambda: service.jobs(limit=-1), "limit"),
        (lambda: service.models(limit=2.5), "limit"),  # type: ignore[arg-type]
        (lambda: service.datasets(limit="all"), "limit"),  # type: ignore[arg-type]
        (lambda: handle.wait(timeout_s=float("nan")), "timeout_s"),
        (lambda: handle.result(timeout_s=-1), "timeout_s"),
        (lambda: handle.wait(listener=3), "listener"),  # type: ignore[arg-type]
        (lambda: handle.wait(progress="yes"), "progress"),  # type: ignore[arg-type]
        (lambda: handle.scale(-1), "workers"),
        (lambda: handle.scale(True), "workers"),
        (lambda: handle.scale(4097), "workers"),
        (lambda: handle.model(7), "path"),  # type: ignore[arg-type]
        (lambda: connect(script.url, patience_s=float("nan")), "patience_s"),
    ]:
        with pytest.raises(RemoteError, match=f"^{param} must be ") as caught:
            call()
        assert caught.value.param == param
    assert not script.asked
