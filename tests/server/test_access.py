"""Who may speak to the server: peers, sites, tokens, roles; and what is recorded of it."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from live_server import Server, fill, free_port, head
from raw_client import ask

from medclipad.client import Client
from medclipad.errors import MedCLIPADError
from medclipad.server.launch import ServerSettings, serve
from medclipad.volume import write_volume

NAMES = {"anna": "read", "bert": "label", "cleo": "train", "dora": "admin"}
TOKENS = {name: f"the-token-of-{name}-is-long" for name in NAMES}


def header(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[name]}"}


# --- without a token ---------------------------------------------------------------------------------------------


def test_without_a_token_a_header_is_no_proof_of_being_here(tmp_path: Path) -> None:
    """Another loopback address stands for the network; MONAI Label's own command binds any address without a token."""
    port, studies = free_port(), fill(tmp_path / "studies")
    app = tmp_path / "monailabel_app"
    shutil.copytree(Path(__file__).parents[2] / "monailabel_app", app, ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        sys.executable, "-c", "from monailabel.main import Main; Main().run()", "start_server", "--app", str(app),
        "--studies", str(studies), "--host", "0.0.0.0", "--port", str(port),
        "--uvicorn_app", "medclipad.server.app:app",
    ]  # fmt: skip
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                assert requests.get(f"http://127.0.0.1:{port}/info/", timeout=30).status_code == 200
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline and process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.3)
        elsewhere = f"http://127.0.0.2:{port}"
        for host in ("127.0.0.2", "localhost", "127.0.0.1"):
            assert ask(elsewhere, "/datastore/?output=all", f"Host: {host}")[0] == 403
            assert ask(elsewhere, "/datastore/image?id=normal_1", f"Host: {host}", method="DELETE")[0] == 403
        assert (studies / "normal_1.nii.gz").exists()
        for forwarded in ("X-Forwarded-For: 127.0.0.1", "Forwarded: for=10.0.0.1", "X-Real-IP: 10.0.0.1"):
            status, text = ask(f"http://127.0.0.1:{port}", "/info/", "Host: localhost", forwarded)
            assert status == 403 and "proxy" in text
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", [f"/datastore/hash/{'0' * 64}", "/datastore/image?image=normal_1", "/docs", "/info/"])
def test_a_page_of_another_site_gets_nothing_and_starts_nothing(server: Server, site: str, path: str) -> None:
    """A picture or script in a page needs no CORS; browsers say whose page asked."""
    before = (server.studies / "datastore_v2.json").read_text()
    answer = requests.get(f"{server.url}{path}", headers={"Sec-Fetch-Site": site}, timeout=10)
    assert answer.status_code == 403
    assert (server.studies / "datastore_v2.json").read_text() == before
    assert requests.get(f"{server.url}/info/", headers={"Sec-Fetch-Site": "same-origin"}, timeout=30).status_code == 200
    assert requests.get(f"{server.url}/info/", headers={"Sec-Fetch-Site": "none"}, timeout=30).status_code == 200


def test_the_page_of_routes_needs_no_script_and_no_other_site(server: Server) -> None:
    answer = requests.get(f"{server.url}/docs", timeout=30)
    assert "/infer/{model}" in answer.text and "PUT /datastore/label" in answer.text
    assert "<script" not in answer.text and "https://" not in answer.text and "http://" not in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert requests.get(f"{server.url}/redoc", timeout=30).status_code == 404


# --- tokens ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with four users."""
    folder = tmp_path_factory.mktemp("shared")
    lines = ["# name role token", "", *(f"{name}  {role}\t{TOKENS[name]}" for name, role in NAMES.items())]
    (folder / "tokens").write_text("\n".join(lines))
    files = ("--token-file", str(folder / "tokens"), "--audit-log", str(folder / "audit.jsonl"))
    running = Server(fill(folder / "studies"), *files, MEDCLIPAD_SCORING="off")
    running.models = folder
    yield running
    running.stop()
    assert "Traceback" not in running.log, running.log


def test_each_role_may_do_what_it_is_for_and_no_more(shared: Server, tmp_path: Path) -> None:
    write_volume(head(3, True)[1], tmp_path / "label.nii.gz")
    write_volume(head(9)[0], tmp_path / "new.nii.gz")
    label, new = (tmp_path / f"{name}.nii.gz" for name in ("label", "new"))
    calls = [
        ("read", "GET", "/info/", {}),
        ("read", "GET", "/datastore/image?image=normal_1", {}),
        ("read", "POST", "/infer/mediclip?image=normal_1&output=json", {}),
        ("read", "POST", "/activelearning/random", {"json": {}}),
        ("label", "PUT", "/datastore/label?image=lesion_1&tag=final", {"file": ("label", label)}),
        ("label", "PUT", "/marks?image=normal_1", {"json": {"plane": "axial", "normal": [9]}}),
        ("label", "PUT", "/datastore/image/info?image=normal_1", {"data": {"info": '{"normal": true}'}}),
        ("label", "PUT", "/datastore/image?image=new_{name}", {"file": ("file", new)}),
        ("train", "POST", "/train/mediclip", {"json": {"normal": ["nobody"]}}),
        ("train", "DELETE", "/train/", {}),
        ("train", "PUT", "/versions/mediclip/current", {"json": {"name": "starter"}}),
        ("admin", "DELETE", "/datastore/image?id=normal_2", {}),
        ("admin", "DELETE", "/versions/mediclip/starter", {}),
    ]
    roles = list(NAMES.values())
    for needed, method, path, sent in calls:
        for name, role in NAMES.items():
            options = {key: value for key, value in sent.items() if key != "file"}
            if "file" in sent:
                field, file = sent["file"]
                options = {"files": {field: (file.name, file.read_bytes())}}
            address = f"{shared.url}{path.format(name=name)}"
            answer = requests.request(method, address, headers=header(name), timeout=120, **options)
            allowed = roles.index(role) >= roles.index(needed)
            assert (answer.status_code != 403) is allowed, (name, method, path, answer.text)
            assert answer.status_code < 500
            if not allowed:
                assert f"role {role}" in answer.json()["detail"] and needed in answer.json()["detail"]


def test_the_audit_log_says_who_did_what_to_which_image_and_when(shared: Server) -> None:
    changed = f"{shared.url}/datastore/image/info?image=normal_1"
    requests.put(changed, data={"info": "{}"}, headers=header("bert"), timeout=30)
    requests.get(f"{shared.url}/datastore/image?image=Mustermann_Max", headers=header("anna"), timeout=30)
    requests.get(f"{shared.url}/info/", timeout=30)
    requests.get(f"{shared.url}/versions/", headers=header("anna"), timeout=30)
    text = (shared.models / "audit.jsonl").read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    written, missing, stranger = entries[-3:]
    assert written["user"] == "bert" and written["request"] == "PUT /datastore/image/info" and written["status"] == 200
    assert written["image"] == sha256(b"normal_1").hexdigest()[:16] and written["time"].endswith("+00:00")
    assert missing["user"] == "anna" and missing["status"] == 404
    assert stranger["user"] is None and stranger["status"] == 401
    for secret in ("Mustermann", "normal_1", *TOKENS.values()):
        assert secret not in text


def test_health_needs_no_token_and_metrics_name_nobody(shared: Server) -> None:
    live = requests.get(f"{shared.url}/health/live", timeout=30)
    health = requests.get(f"{shared.url}/health", timeout=30)
    assert live.json() == {"live": True} and health.json() == {"live": True, "ready": True, "problems": []}
    requests.get(f"{shared.url}/datastore/image?image=Mustermann_Max", headers=header("anna"), timeout=30)
    requests.get(f"{shared.url}/Mustermann/Max", headers=header("anna"), timeout=30)
    assert requests.get(f"{shared.url}/metrics", timeout=30).status_code == 401
    text = requests.get(f"{shared.url}/metrics", headers=header("anna"), timeout=30).text
    sample = r'medclipad_[a-z_]+(\{([a-z]+="[^"\\]*",?)+\})? [0-9.e+-]+(inf)?'
    for line in text.splitlines():
        assert re.fullmatch(rf"# TYPE medclipad_[a-z_]+ (counter|gauge|histogram)|{sample}", line), line
    assert 'medclipad_requests_total{method="GET",route="/datastore/image",status="404"}' in text
    assert 'medclipad_requests_total{method="GET",route="-",status="401"}' in text
    assert "medclipad_ready 1\n" in text and re.search(r"medclipad_images [4-9]\n", text)
    for secret in ("Mustermann", "normal_1", "anna", *TOKENS.values()):
        assert secret not in text


def test_no_token_is_in_the_list_of_processes(shared: Server) -> None:
    process = psutil.Process(shared.process.pid)
    assert not any(token in " ".join(process.cmdline()) for token in TOKENS.values())


def test_who_is_taken_out_of_the_token_file_is_out_at_once(shared: Server) -> None:
    """And a file that cannot be used changes nothing; its name is in no log."""
    file = shared.models / "tokens"
    before = file.read_text()

    def status(token: str) -> int:
        sent = {"Authorization": f"Bearer {token}"}
        return requests.get(f"{shared.url}/info/", headers=sent, timeout=30).status_code

    new = "a-token-that-is-quite-new"
    try:
        assert (status(TOKENS["anna"]), status(new)) == (200, 401)
        file.write_text(before.replace(TOKENS["anna"], new))
        assert (status(TOKENS["anna"]), status(new)) == (401, 200)
        file.write_text("anna owner x")
        assert (status(TOKENS["anna"]), status(new)) == (401, 200)
        file.unlink()
        assert status(new) == 200
    finally:
        file.write_text(before)
    assert (status(TOKENS["anna"]), status(new)) == (200, 401)
    assert "The token file has changed, but cannot be used" in shared.log and str(file) not in shared.log


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no token"),
        ("short", "16 printable ASCII"),
        ("anna read", "Line 1 of the token file"),
        (f"anna owner {TOKENS['anna']}", "read, label, train, admin"),
        (f"anna read {TOKENS['anna']}\nbert read {TOKENS['anna']}", "same token"),
        (None, "cannot be read"),
    ],
)
def test_a_token_file_that_cannot_be_used_is_said(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "tokens").write_text(text)
    with pytest.raises(MedCLIPADError, match=says):
        serve(ServerSettings(tmp_path, port=0, token_file=tmp_path / "tokens"))


def test_a_proxy_needs_a_token(tmp_path: Path) -> None:
    with pytest.raises(MedCLIPADError, match="Through a proxy"):
        serve(ServerSettings(tmp_path, port=0, proxy="127.0.0.1"))


# --- HTTPS, files, configuration -----------------------------------------------------------------------------------


def certificate(folder: Path) -> tuple[Path, Path]:
    """Return a certificate of this machine for itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return cert, key


def test_https_by_two_options_and_a_configuration_file(tmp_path: Path) -> None:
    """And a client that does not finish the handshake is dropped as one that does not finish its header."""
    cert, key = certificate(tmp_path)
    (tmp_path / "medclipad.toml").write_text(
        f'certfile = "{cert}"\nkeyfile = "{key}"\nlog-file = "{tmp_path / "log"}"\nport = 1\n'
        '[environment]\nMEDCLIPAD_SCORING = "off"\n'
    )
    server = Server(fill(tmp_path / "studies"), "--config", str(tmp_path / "medclipad.toml"))
    try:
        assert server.url.startswith("https://127.0.0.1:") and not server.url.endswith(":1"), "the option wins"
        assert requests.get(f"{server.url}/info/", verify=str(cert), timeout=30).status_code == 200
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"{server.url}/info/", timeout=30)
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as silent:
            started = time.monotonic()
            assert silent.recv(100) == b"" and time.monotonic() - started < 13
        assert ssl.create_default_context(cafile=str(cert)).check_hostname
        assert (tmp_path / "log").exists()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("studie = 'x'", "'studie' is not an option of serve"),
        ("port = ", "cannot be read"),
        ("host = ['127.0.0.1']", "wrong kind"),
        ("certfile = 'a.pem'", "both a certificate and its key"),
        ("certfile = 'a.pem'\nkeyfile = 'b.pem'", "cannot be used"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_said(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "c.toml").write_text(f"{text}\n")
    server = Server(tmp_path, "--config", str(tmp_path / "c.toml"), wait=False)
    server.process.wait(60)
    assert server.process.returncode == 1 and says in server.log and "Traceback" not in server.log, server.log


def test_what_is_made_respects_the_umask(tmp_path: Path) -> None:
    """Under umask 077 nobody else can read a file or folder that the server or its training made."""
    studies = fill(tmp_path / "studies")
    own = {path for path in studies.rglob("*")}
    server = Server(studies, prefix=("sh", "-c", 'umask 077; exec "$@"', "sh"), MEDCLIPAD_SCORING="off")
    try:
        client = Client(server.url, timeout=120)
        client.set_image_info("normal_1", {"normal": True})
        write_volume(head(3, True)[1], tmp_path / "label.nii.gz")
        client.save_label("lesion_1", tmp_path / "label.nii.gz")
        client.infer("mediclip", "normal_1")
        client.train("mediclip", {"shots": 2, "epochs": 1, "normal": ["normal_1"], "name": "v", "memory_size": 50})
        client.wait_trained(seconds=120)
    finally:
        server.stop()
    made = [path for path in studies.rglob("*") if path not in own]
    open_to_others = [path for path in made if path.stat().st_mode & 0o077]
    assert len(made) > 8 and not open_to_others, [(str(path), oct(path.stat().st_mode)) for path in open_to_others]


def test_the_log_is_bounded_in_pace_and_size(tmp_path: Path) -> None:
    import logging

    from medclipad.server.logs import LOG_BYTES, LOG_FILES, RepeatFilter, set_up_logging

    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    root.handlers.clear()
    try:
        set_up_logging(tmp_path / "log")
        for handler in root.handlers:
            handler.filters = [each for each in handler.filters if not isinstance(each, RepeatFilter)]
        logger = logging.getLogger("bounded")  # the command line keeps what is below "medclipad" to itself
        for _ in range(100):
            logger.warning("x" * (LOG_BYTES // 8))
        sizes = [file.stat().st_size for file in tmp_path.glob("log*")]
        assert len(sizes) == LOG_FILES + 1 and max(sizes) <= LOG_BYTES
        logging.getLogger("pydicom").warning("Mustermann")
        logging.getLogger("py.warnings").warning("Mustermann")
        assert not any("Mustermann" in file.read_text() for file in tmp_path.glob("log*"))
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = before
    passed = RepeatFilter(repeats=5)
    record = logging.LogRecord("x", logging.WARNING, "file.py", 1, "again", (), None)
    assert np.sum([passed.filter(record) for _ in range(1000)]) == 5
