"""How both clients fail: one sentence, one cause and one status for each fault, on real sockets."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bindings import Binding
from fault_server import CUT, DROP, HANG, Answer, FaultServer
from live_server import free_port

PAGE = b"<html>hello</html>"


@pytest.fixture
def refused(binding: Binding) -> Callable[..., Any]:
    """`refused(url)`: the ServerError of a request for the server's info."""

    def check(url: str, token: str = "", call: Callable[[Any], Any] | None = None, **options: Any) -> Any:
        with pytest.raises(binding.server_error) as caught:
            client = binding.connect(url, token)
            call(client) if call else client.info(**options)
        sentence = str(caught.value)
        assert sentence[0].isprintable() and sentence.endswith(".") and "\n" not in sentence and len(sentence) < 200
        assert ": " in sentence, f"it does not say what to do: {sentence}"
        return caught.value

    return check


# --- no connection ---
def test_no_server(refused: Callable) -> None:
    error = refused(f"http://127.0.0.1:{free_port()}")
    assert (error.cause, error.status) == ("refused", None)
    assert str(error).startswith("No server is running at http://127.0.0.1:") and "medclipad serve" in str(error)


def test_an_unknown_host(refused: Callable) -> None:
    error = refused("http://no-such-host.invalid:8000")
    assert (error.cause, error.status) == ("unknown host", None)
    assert "Computer no-such-host.invalid was not found" in str(error)


def test_an_unreachable_host(refused: Callable) -> None:
    """On Linux, a socket whose queue of connections is full takes no further one."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        error = refused(f"http://127.0.0.1:{full.getsockname()[1]}", timeout=0.5)
    assert (error.cause, error.status) == ("unreachable", None)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "ftp://x", "http://", "http://x:port", "http://[::1", "http://x:99999", "http://x:0"]
)
def test_an_invalid_address(refused: Callable, url: str) -> None:
    error = refused(url)
    assert (error.cause, error.status) == ("address", None) and "http://127.0.0.1:8000" in str(error)


def test_a_token_that_no_header_can_carry(refused: Callable, faulty: FaultServer) -> None:
    error = refused(faulty.url, token="two\nlines")
    assert (error.cause, error.status) == ("token", None) and "two" not in str(error)


# --- encryption ---
def test_https_to_a_server_without_it(refused: Callable, faulty: FaultServer) -> None:
    error = refused(faulty.url.replace("http:", "https:"), timeout=2.0)
    assert error.cause in ("address", "lost") and error.status is None
    assert "http:" not in str(error), "never suggest an open connection"


def test_an_untrusted_certificate(refused: Callable, faulty: FaultServer, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    options = [
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=x",
    ]
    options += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", *options], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    faulty.socket = context.wrap_socket(faulty.socket, server_side=True)
    error = refused(faulty.url.replace("http:", "https:"), token="secret")
    assert (error.cause, error.status) == ("certificate", None) and "CA certificate" in str(error)
    assert "http:" not in str(error), "never suggest an open connection: it would show the token"


# --- no answer, or half of one ---
def test_timeout(refused: Callable, faulty: FaultServer) -> None:
    faulty.plan = HANG
    error = refused(faulty.url, timeout=0.5)
    assert (error.cause, error.status) == ("timeout", None) and "within 0.5 seconds" in str(error)


@pytest.mark.parametrize("plan", [CUT, DROP])
def test_the_connection_is_lost(refused: Callable, faulty: FaultServer, plan: str) -> None:
    faulty.plan = plan
    error = refused(faulty.url)
    assert (error.cause, error.status) == ("lost", None) and "was lost" in str(error)


def test_the_connection_is_lost_during_a_download(
    refused: Callable, binding: Binding, faulty: FaultServer, tmp_path: Path
) -> None:
    faulty.plan = CUT
    error = refused(faulty.url, call=lambda client: binding.download(client, "case", tmp_path, None))
    assert (error.cause, error.status) == ("lost", None)


def test_the_connection_is_lost_during_an_upload(refused: Callable, faulty: FaultServer, tmp_path: Path) -> None:
    faulty.plan = DROP
    (tmp_path / "volume.nrrd").write_bytes(bytes(20_000_000))
    error = refused(faulty.url, call=lambda client: client.upload_image(tmp_path / "volume.nrrd", "case"))
    assert (error.cause, error.status) == ("lost", None)


# --- another program ---
@pytest.mark.parametrize(
    "plan",
    [
        Answer(404, PAGE),
        Answer(405, PAGE),
        Answer(404, b'{"detail": "Not Found"}'),
        Answer(200, PAGE),
        Answer(200, b""),
        Answer(200, b"[1, 2]"),
        Answer(200, b'{"version": "0.8.5", "models": {}}'),
    ],
    ids=["404 page", "405 page", "another FastAPI", "a page", "nothing", "other JSON", "MONAI Label without MedCLIPAD"],
)
def test_another_program(refused: Callable, faulty: FaultServer, plan: Answer) -> None:
    faulty.plan = plan
    error = refused(faulty.url)
    assert (error.cause, error.status) == ("not medclipad", None) and "not a MedCLIPAD server" in str(error)


def test_an_answer_that_is_not_json(refused: Callable, faulty: FaultServer) -> None:
    faulty.plan = Answer(200, PAGE)
    for call in (lambda client: client.versions(), lambda client: client.train("mediclip", {})):
        assert refused(faulty.url, call=call).cause == "not medclipad"


def test_an_inference_without_a_map(refused: Callable, binding: Binding, faulty: FaultServer) -> None:
    infer = lambda client: binding.infer(client, "mediclip", "case", lambda _: None, lambda: False)  # noqa: E731
    faulty.plan = Answer(200, PAGE, {"Content-Type": "multipart/form-data; boundary=x"})
    error = refused(faulty.url, call=infer)
    assert (error.cause, error.status) == ("answer", None) and "contains no map" in str(error)


# --- refusals ---
@pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 422, 429, 500, 503, 507])
def test_the_sentence_of_the_server_is_shown(refused: Callable, faulty: FaultServer, status: int) -> None:
    sentence = "The disk of the server is full: free some space."
    faulty.plan = Answer(status, json.dumps({"detail": sentence}).encode())
    error = refused(faulty.url)
    assert str(error) == sentence
    assert (error.cause, error.status) == ("busy" if status in (429, 503) else "answer", status)


@pytest.mark.parametrize("body", [b"", PAGE, b'{"detail": [1]}', b"[]"])
def test_a_refusal_without_a_sentence(refused: Callable, faulty: FaultServer, body: bytes) -> None:
    faulty.plan = Answer(503, body, {"Retry-After": "5"})
    error = refused(faulty.url)
    assert (error.cause, error.status) == ("busy", 503) and "is busy" in str(error)
    faulty.plan = Answer(502, body)
    error = refused(faulty.url)
    assert (error.cause, error.status) == ("answer", 502) and "HTTP 502" in str(error)


def test_a_token_is_required(refused: Callable, faulty: FaultServer) -> None:
    faulty.plan = Answer(401, b'{"detail": "x"}')
    error = refused(faulty.url)
    assert (error.cause, error.status) == ("token", 401) and "requires an access token" in str(error)
