"""One sentence for each way in which a connection can fail. Real sockets; no MRML, no widgets."""

from __future__ import annotations

import errno
import gzip
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("slicer_app")  # whose i18n the sentences go through


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the server object's `plan` says: (status, headers, body), "hang" or "break"."""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        plan = self.server.plan
        if plan == "hang":
            time.sleep(3)
            return
        if plan == "break":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, headers, body = plan
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    running.plan = (200, {}, b"{}")
    running.url = f"http://127.0.0.1:{running.server_port}"
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def refused(url: str, **options: Any) -> Any:
    from MedCLIPADLib.client import Client
    from MedCLIPADLib.errors import ServerError

    with pytest.raises(ServerError) as caught:
        Client(url, options.pop("token", ""), options.pop("ca_file", "")).info(**options)
    sentence = str(caught.value)
    assert sentence[0].isprintable() and sentence.endswith(".") and "\n" not in sentence and len(sentence) < 200
    return caught.value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_no_server_is_running() -> None:
    error = refused(f"http://127.0.0.1:{free_port()}")
    assert error.cause == "refused" and str(error).startswith("No server is running at http://127.0.0.1:")


def test_no_such_computer() -> None:
    error = refused("http://no-such-host.invalid:8000")
    assert error.cause == "unknown host" and "Computer no-such-host.invalid was not found" in str(error)


def test_unreachable() -> None:
    """A computer that accepts no connection: on Linux, a socket whose queue of connections is full."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        assert refused(f"http://127.0.0.1:{full.getsockname()[1]}", timeout=0.5).cause == "unreachable"


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETUNREACH])
def test_no_route_to_the_computer(number: int) -> None:
    import requests
    from MedCLIPADLib.transport import connection_error

    try:
        try:
            raise OSError(number, "no way")
        except OSError as error:
            raise requests.ConnectionError(error) from error
    except requests.ConnectionError as error:
        assert connection_error(error, "http://somewhere:8000", 5).cause == "unreachable"


@pytest.mark.parametrize(
    "url", ["", "nonsense", "ftp://x", "http://", "http://x:port", "http://[::1", "http://x:99999"]
)
def test_an_invalid_address(url: str) -> None:
    assert refused(url).cause == "address"


def test_https_to_a_server_without_it(server: Any) -> None:
    error = refused(server.url.replace("http:", "https:"), timeout=2.0)
    assert error.cause in ("address", "lost") and "http:" not in str(error), "never suggest an open connection"


@pytest.fixture
def untrusted(server: Any, tmp_path: Path) -> str:
    """Address of a server with a certificate that it has signed itself."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the Debian package openssl: make system")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
    options += " -addext subjectAltName=IP:127.0.0.1"
    command = ["openssl", "req", *options.split(), "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server.url.replace("http:", "https:")


def test_an_untrusted_certificate(untrusted: str) -> None:
    """The sentence must not suggest an open connection: the token would be sent in clear."""
    error = refused(untrusted, token="secret")
    assert error.cause == "certificate" and "CA certificate" in str(error) and "under Connection" in str(error)
    assert "http:" not in str(error)


def test_the_ca_file_that_the_sentence_asks_for_makes_the_connection(
    untrusted: str, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from MedCLIPADLib.client import Client

    server.plan = (200, {}, b'{"medclipad": {"version": "1"}}')
    client = Client(untrusted, "secret", str(tmp_path / "certificate.pem"))
    assert client.info() and client.copy().info(), "also in another thread"
    for wrong in ("missing.pem", "key.pem"):
        error = refused(untrusted, ca_file=str(tmp_path / wrong))
        assert error.cause == "certificate" and wrong in str(error) and "PEM" in str(error)
    error = refused(untrusted.replace("127.0.0.1", "localhost"), ca_file=str(tmp_path / "certificate.pem"))
    assert error.cause == "certificate" and "another name" in str(error) and "http:" not in str(error)


@pytest.mark.parametrize("code", [9, 10])
def test_a_certificate_that_is_not_valid_today(code: int) -> None:
    from MedCLIPADLib.transport import connection_error

    error = ssl.SSLCertVerificationError("certificate has expired")
    error.verify_code = code
    assert "is not valid today" in str(connection_error(error, "https://somewhere", 5))


@pytest.mark.parametrize("target", ["http://elsewhere:1/", "https://elsewhere/", "/elsewhere"])
def test_a_redirect_is_not_followed(server: Any, target: str) -> None:
    """Voxels and token go to the address that the reader entered, or nowhere."""
    server.plan = (307, {"Location": target}, b"")
    error = refused(server.url, token="secret")
    assert error.cause in ("address", "not medclipad")
    assert "http:" not in str(error).replace(server.url, "").replace(target.rstrip("/"), "")


def test_the_environments_proxy_gets_nothing(server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from MedCLIPADLib.client import Client

    server.plan = (200, {}, b'{"medclipad": {"version": "1"}, "image": "x"}')
    volume = tmp_path / "v.nrrd"
    volume.write_bytes(b"voxels")
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        proxy.listen()
        proxy.settimeout(0.3)
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, address)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        client = Client(server.url)
        assert client.info() and client.upload_image(volume, "x") == "x"
        with pytest.raises(TimeoutError):
            proxy.accept()


def test_timeout(server: Any) -> None:
    server.plan = "hang"
    error = refused(server.url, timeout=0.5)
    assert error.cause == "timeout" and "0.5 seconds" in str(error)


def test_the_connection_is_lost(server: Any) -> None:
    server.plan = "break"
    error = refused(server.url)
    assert error.cause == "lost" and "was lost" in str(error)


def test_a_token_is_required(server: Any) -> None:
    server.plan = (401, {}, b'{"detail": "x"}')
    error = refused(server.url)
    assert error.cause == "token" and "requires an access token" in str(error)
    assert refused(server.url, token="ключ").cause == "token"


@pytest.mark.parametrize(
    "plan",
    [
        (404, {}, b"<html>not here</html>"),
        (404, {}, b'{"detail": "Not Found"}'),
        (200, {}, b"<html>hello</html>"),
        (200, {}, b"[1, 2]"),
        (200, {}, b'{"version": "0.8.5", "models": {}}'),
    ],
    ids=["404 page", "another FastAPI", "a page", "other JSON", "MONAI Label without MedCLIPAD"],
)
def test_another_kind_of_server(server: Any, plan: Any) -> None:
    server.plan = plan
    assert refused(server.url).cause == "not medclipad"


def test_busy(server: Any) -> None:
    server.plan = (503, {"Retry-After": "5"}, b"")
    assert refused(server.url).cause == "busy"
    server.plan = (503, {}, b'{"detail": "Too many inferences are waiting: try again in a moment."}')
    error = refused(server.url)
    assert error.cause == "busy" and "Too many" in str(error)


def test_the_servers_sentence_is_shown(server: Any) -> None:
    server.plan = (507, {}, b'{"detail": "The disk of the server is full: free some space."}')
    assert str(refused(server.url)) == "The disk of the server is full: free some space."
    server.plan = (500, {}, b"Internal Server Error")
    assert "HTTP 500" in str(refused(server.url))


def test_a_damaged_or_foreign_map_is_refused(scene: Any) -> None:
    import nibabel
    from MedCLIPADLib.detection import read_map
    from MedCLIPADLib.errors import ModuleError
    from MedCLIPADLib.volumes import Source
    from served import grid

    source = Source("case", np.zeros((4, 5, 6), np.int16), grid())

    def nifti(shape: Any, affine: np.ndarray) -> bytes:
        return gzip.compress(nibabel.Nifti1Image(np.zeros(shape, np.float32), affine).to_bytes())

    assert read_map(nifti((6, 5, 4), grid()), source).shape == (4, 5, 6)
    shifted = grid()
    shifted[0, 3] += 0.1
    for content in (
        b"",
        b"nonsense",
        nifti((6, 5, 4), grid())[:60],
        nifti((6, 5, 5), grid()),
        nifti((6, 5, 4), shifted),
    ):
        with pytest.raises(ModuleError, match=r"map|volume"):
            read_map(content, source)


def test_a_volume_too_large_for_the_server_is_not_sent(server: Any) -> None:
    from MedCLIPADLib.client import Client
    from MedCLIPADLib.detection import ensure_image
    from MedCLIPADLib.errors import ModuleError
    from MedCLIPADLib.jobs import Job, Jobs
    from MedCLIPADLib.volumes import Source

    server.plan = (404, {}, b'{"detail": "There is no image with this content."}')
    noise = np.random.default_rng(0).integers(0, 30000, (20, 50, 50)).astype(np.int16)
    with pytest.raises(ModuleError, match="too large"):
        ensure_image(Client(server.url), Source("big", noise, np.eye(4)), Job(Jobs(), "x"), limit=50_000)


def test_errors_of_jobs_reach_the_main_thread_as_one_sentence() -> None:
    from MedCLIPADLib.errors import ModuleError
    from MedCLIPADLib.jobs import Jobs
    from served import Calls, run

    jobs, done, failed = Jobs(), Calls(), Calls()

    def broken(_: Any) -> None:
        raise OSError(28, "No space left on device")

    def refusing(_: Any) -> None:
        raise ModuleError("The answer does not fit.")

    jobs.start("Detect", broken, done, failed)
    run(jobs, lambda: failed, 5)
    assert "Detect failed" in failed[0][0] and "No space left" in failed[0][0]
    jobs.start("Detect", lambda job: 1, refusing, failed)
    run(jobs, lambda: len(failed) == 2, 5)
    assert failed[1] == ("The answer does not fit.",) and jobs.idle
