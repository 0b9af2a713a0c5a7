"""Download of weights by open_clip's and timm's names, over HTTP from a server on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from medclipad.compat import ensure_torchvision
from medclipad.encoders import load_encoder
from medclipad.encoders.openclip.network import ClipEncoder
from medclipad.errors import Cancelled, DetectorError

ARCHITECTURE = "tiny-download-test"
CONFIG = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 28, "layers": 4, "width": 32, "head_width": 16, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


class Handler(BaseHTTPRequestHandler):
    """Answers with the weights; under /cut/ with half of them, then hangs up."""

    def do_HEAD(self, body: bool = False) -> None:
        server = self.server
        server.requests.append((self.command, self.path))
        if self.path.startswith("/missing/") or self.path.endswith(".safetensors"):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(server.content)))
        self.send_header("ETag", f'"{hashlib.sha256(server.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if body:
            half = len(server.content) // 2
            self.wfile.write(server.content[:half] if self.path.startswith("/cut/") else server.content)
        self.close_connection = True

    def do_GET(self) -> None:
        self.do_HEAD(body=True)

    def log_message(self, *args) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> dict[str, torch.Tensor]:
    ensure_torchvision()
    import open_clip

    folder = tmp_path_factory.mktemp("configs")
    (folder / f"{ARCHITECTURE}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    return open_clip.CLIP(**CONFIG).state_dict()


@pytest.fixture(scope="module")
def server(state, tmp_path_factory):
    file = tmp_path_factory.mktemp("served") / "weights.pt"
    torch.save(state, file)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.content, running.requests = file.read_bytes(), []
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home, so that nothing is cached; returns the folder that open_clip caches in."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".cache" / "clip"


@pytest.fixture
def tag(server, home, monkeypatch):
    """`tag("/path/of/weights.pt")` returns the encoder name of a pretrained tag whose weights have this address."""
    from open_clip import pretrained

    def register(path: str = "/weights.pt", **entry) -> str:
        entry = entry or {"url": f"http://127.0.0.1:{server.server_port}{path}"}
        monkeypatch.setitem(pretrained._PRETRAINED, ARCHITECTURE, {"local": entry})
        server.requests.clear()
        return f"{ARCHITECTURE}/local"

    return register


def refused(name: str, words: str) -> None:
    with pytest.raises(DetectorError, match=words) as caught:
        ClipEncoder(name)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 600, text


def test_first_use_downloads_with_a_bar_and_the_second_does_not(server, tag, home, state, capsys):
    name, reports = tag(), []
    encoder = ClipEncoder(name)
    bar = capsys.readouterr().err
    assert "weights.pt" in bar and "100%" in bar
    assert encoder.sha256 == hashlib.sha256(server.content).hexdigest()
    assert torch.equal(encoder.state_dict()["_tower.visual.conv1.weight"], state["visual.conv1.weight"])
    assert [file.name for file in home.iterdir()] == ["weights.pt"]
    again = ClipEncoder(name, progress=lambda *report: reports.append(report))
    assert len(server.requests) == 1 and not reports and again.sha256 == encoder.sha256


def test_progress_is_reported_instead_of_drawn(tag, server, capsys):
    reports = []
    ClipEncoder(tag(), progress=lambda *report: reports.append(report))
    done, total = len(server.content) >> 20, max(len(server.content) >> 20, 1)
    assert reports[-1] == ("download", done, total, {}) and len(reports) >= 2
    assert [report[1] for report in reports] == sorted(report[1] for report in reports)
    assert not capsys.readouterr().err


def test_interrupted_download_leaves_nothing(tag, home):
    name = tag("/cut/weights.pt")
    refused(name, f"could not be downloaded.*{ARCHITECTURE}/FILE")
    assert not list(home.iterdir())
    assert ClipEncoder(tag()).sha256, "the next try starts again"


def test_cancelled_download_leaves_nothing(tag, home):
    def cancel(*report):
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        ClipEncoder(tag(), progress=cancel)
    assert not list(home.iterdir())


def test_addresses_with_a_sha256(server, tag, home):
    """As OpenAI's: the folder before the file's name is its SHA-256."""
    right = hashlib.sha256(server.content).hexdigest()
    refused(tag(f"/openaipublic/{'0' * 64}/weights.pt"), "another SHA-256")
    assert not list(home.iterdir())
    name = tag(f"/openaipublic/{right}/weights.pt")
    assert ClipEncoder(name).sha256 == right
    (home / "weights.pt").write_bytes(server.content[:-1])
    refused(name, "SHA-256 differs.*remove it")


@pytest.mark.parametrize("path", ["/missing/weights.pt", None])
def test_server_without_the_file_or_no_server(tag, home, path):
    name = tag(path) if path else tag(url="http://127.0.0.1:9/weights.pt")
    refused(name, "could not be downloaded")
    assert not home.exists() or not list(home.iterdir())


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """`hub(port)` lets the hub's own client talk to a port of this machine, with an empty cache."""
    from huggingface_hub import constants

    def at(port: int) -> None:
        address = f"http://127.0.0.1:{port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    at(server.server_port)
    return at


def test_hub(server, tag, hub):
    """The hub's own client finds the second of the file names that open_clip's repositories use."""
    reports = []
    encoder = ClipEncoder(tag(hf_hub="owner/model/"), progress=lambda *report: reports.append(report))
    assert encoder.sha256 == hashlib.sha256(server.content).hexdigest()
    requests = [path.rpartition("/")[2] for command, path in server.requests if command == "GET"]
    assert requests.count("open_clip_pytorch_model.bin") == 1
    assert "open_clip_model.safetensors" in {path.rpartition("/")[2] for _, path in server.requests}, "the first name"
    assert reports and reports[-1][0] == "download"
    assert ClipEncoder(f"{ARCHITECTURE}/local").sha256 == encoder.sha256
    requests = [path.rpartition("/")[2] for command, path in server.requests if command == "GET"]
    assert requests.count("open_clip_pytorch_model.bin") == 1, "the second time it is there"
    hub(9)
    assert ClipEncoder(f"{ARCHITECTURE}/local").sha256 == encoder.sha256, "also without a network"


def test_without_a_network_it_is_said_at_once(tag, hub):
    hub(9)
    start = time.monotonic()
    refused(tag(hf_hub="owner/model/"), f"could not be downloaded.*{ARCHITECTURE}/FILE")
    assert time.monotonic() - start < 3


def test_weights_of_timm_come_from_its_own_repository(server, hub):
    server.requests.clear()
    with pytest.raises(DetectorError, match=r'"augreg_in21k" of timm:vit_tiny_patch16_224 could not be downloaded'):
        load_encoder("timm:vit_tiny_patch16_224.augreg_in21k", 32, "cpu")
    paths = {path for _, path in server.requests}
    assert "/timm/vit_tiny_patch16_224.augreg_in21k/resolve/main/model.safetensors" in paths
