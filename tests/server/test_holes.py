"""Requests that MONAI Label 0.8.5 accepts and should not, and others that a public server must withstand."""

from __future__ import annotations

import gzip
import json
import random
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from live_server import SMALL, Server, fill, head

from medclipad.client import Client, ServerError
from medclipad.errors import MedCLIPADError
from medclipad.volume import Volume, read_volume, write_volume


def nifti_header(shape: tuple[int, int, int], bits: int = 16) -> bytes:
    """A NIfTI-1 header of int16 or uint8 voxels, 352 bytes."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, {8: 2, 16: 4}[bits], bits)
    struct.pack_into("<8f", header, 76, *[1] * 8)
    struct.pack_into("<f", header, 108, 352)
    struct.pack_into("<2h", header, 252, 0, 1)
    struct.pack_into("<12f", header, 280, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    header[344:348] = b"n+1\0"
    return bytes(header)


def put_image(server: Server, name: str, content: bytes) -> requests.Response:
    return requests.put(f"{server.url}/datastore/image", files={"file": (name, content)}, timeout=120)


def rss(server: Server) -> int:
    return psutil.Process(server.process.pid).memory_info().rss


def test_a_file_that_decompresses_past_its_header_is_refused_early(server: Server, client: Client) -> None:
    bomb = gzip.compress(nifti_header((16, 16, 16)) + bytes(256 * 1024**2), 9)
    assert len(bomb) < 1024**2
    images, before = client.images(), rss(server)
    answer = put_image(server, "bomb.nii.gz", bomb)
    assert answer.status_code == 413 and "decompresses" in answer.json()["detail"], answer.text
    answer = requests.post(f"{server.url}/infer/mediclip", files={"file": ("bomb.nii.gz", bomb)}, timeout=120)
    assert answer.status_code == 413
    assert rss(server) - before < 100 * 1024**2 and client.images() == images


@pytest.mark.parametrize("name", ["huge.nii.gz", "huge.nii", "huge.nrrd", "huge.mha"])
def test_a_volume_too_large_is_refused_by_its_header(server: Server, client: Client, name: str) -> None:
    n = 30_000
    content = {
        "huge.nii.gz": gzip.compress(nifti_header((n, n, 30), 8) + bytes(30 * 1024**2), 9),
        "huge.nii": nifti_header((n, n, n), 8),
        "huge.nrrd": (
            f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: {n} {n} {n}\nencoding: gzip\n"
            "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n\n"
        ).encode()
        + gzip.compress(bytes(1000)),
        "huge.mha": (
            f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = True\n"
            f"CompressedDataSize = 100\nDimSize = {n} {n} {n}\nElementSpacing = 1 1 1\nElementType = MET_UCHAR\n"
            "ElementDataFile = LOCAL\n"
        ).encode()
        + bytes(100),
    }[name]
    before = rss(server)
    answer = put_image(server, name, content)
    assert answer.status_code == 413 and "voxels" in answer.json()["detail"], answer.text
    assert rss(server) - before < 100 * 1024**2


def test_damaged_files_of_every_kind_are_4xx(server: Server, client: Client, tmp_path: Path) -> None:
    """Truncated, with flipped bits, with another suffix: the answer is always one sentence."""
    rng = np.random.default_rng(0)
    volume, _ = head(31)
    small = Volume(volume.array[::4, ::4, ::4], volume.affine)
    tried = {}
    for suffix in (".nii.gz", ".nii", ".nrrd", ".mha"):
        write_volume(small, tmp_path / f"x{suffix}")
        good = (tmp_path / f"x{suffix}").read_bytes()
        for number in range(12):
            bad = bytearray(good)
            if number % 3 == 0:
                del bad[rng.integers(len(bad)) :]
            else:
                for at in rng.integers(0, min(len(bad), 400), 4 * number):
                    bad[at] = rng.integers(256)
            name = f"fuzz_{number}{suffix if number % 4 else '.nrrd'}"
            query = {"files": {"label": (name, bytes(bad))}, "timeout": 60}
            answer = requests.put(f"{server.url}/datastore/label?image=normal_2&tag=fuzz", **query)
            tried[answer.status_code] = tried.get(answer.status_code, 0) + 1
            assert answer.status_code in (400, 413, 415, 422), (name, answer.status_code, answer.text)
            assert answer.json()["detail"].strip() and "Traceback" not in answer.text
    assert sum(tried.values()) == 48


@pytest.mark.parametrize(
    ("address", "fields"),
    [
        ("datastore/image/info?image=normal_2", {"info": '{"x": NaN}'}),
        ("datastore/image/info?image=normal_2", {"info": '{"x": 1e999}'}),
        ("datastore/image/info?image=normal_2", {"info": '{"x": -Infinity}'}),
        ("datastore/image/info?image=normal_2", {"info": "[" * 100_000}),
        ("datastore/image/info?image=normal_2", {"info": '{"sha256": "0"}'}),
        ("datastore/image/info?image=normal_2", {"info": '{"strategy": 5}'}),
        ("datastore/image/info?image=normal_2", {"info": '{"marks": {"normal": "abc"}}'}),
        ("datastore/image/info?image=normal_2", {"info": '{"x": "\\ud800"}'}),  # half a character
        ("datastore/image/info?image=normal_2", {"info": '{"\\ud800": 1}'}),
        ("datastore/label/info?label=lesion_1&tag=final", {"info": '{"x": ["\\udfff"]}'}),
        ("datastore/label/info?label=lesion_1&tag=final", {"info": "nothing"}),
    ],
)
def test_what_is_no_json_never_gets_into_the_store(server: Server, address: str, fields: dict) -> None:
    assert requests.put(f"{server.url}/{address}", data=fields, timeout=30).status_code == 400
    assert requests.get(f"{server.url}/datastore/?output=all", timeout=30).status_code == 200


def test_the_info_that_a_client_stores_cannot_break_the_server(server: Server, client: Client) -> None:
    """Only the server's own routes write the keys that it manages, and the rest is bounded."""
    content = (server.studies / "normal_1.nii.gz").read_bytes()
    for said in ('{"marks": 5}', '{"strategy": []}', '{"x": "\\ud800"}'):
        answer = requests.put(
            f"{server.url}/datastore/image?image=said",
            files={"file": ("x.nii.gz", content)},
            data={"params": said},
            timeout=60,
        )
        assert answer.status_code == 400, answer.text
    assert "said" not in client.images()
    client.set_image_info("normal_2", {"a": "x" * 900_000})
    with pytest.raises(ServerError, match="longer than 1 MiB") as caught:
        client.set_image_info("normal_2", {"b": "x" * 900_000})
    assert caught.value.status == 413
    client.set_image_info("normal_2", {"a": ""})
    assert client.next_sample()["id"] in client.images()


def test_uploads_downloads_and_removals_of_one_id_at_once(server: Server, tmp_path: Path) -> None:
    """In any order, the answers are a file, 404 or 409, and never half a file."""
    content = (server.studies / "normal_1.nii.gz").read_bytes()
    volume = read_volume(server.studies / "normal_1.nii.gz")
    write_volume(volume.with_array((volume.array > 0).astype(np.uint8)), tmp_path / "label.nii.gz")
    drawn = (tmp_path / "label.nii.gz").read_bytes()
    image, label = f"{server.url}/datastore/image", f"{server.url}/datastore/label"
    asked = {
        "add": lambda: requests.put(f"{image}?image=churn", files={"file": ("x.nii.gz", content)}, timeout=60),
        "get": lambda: requests.get(f"{image}?image=churn", timeout=60),
        "remove": lambda: requests.delete(f"{image}?id=churn", timeout=60),
        "draw": lambda: requests.put(f"{label}?image=churn&tag=t", files={"label": ("x.nii.gz", drawn)}, timeout=60),
        "look": lambda: requests.get(f"{label}?label=churn&tag=t", timeout=60),
        "scores": lambda: requests.post(f"{server.url}/infer/mediclip?image=churn&output=json", timeout=60),
    }
    allowed = {"add": {200, 409}}

    def work(seed: int) -> list[tuple[str, requests.Response]]:
        draw = random.Random(seed)
        kinds = draw.choices(list(asked), [4, 5, 4, 2, 2, 1], k=20)
        return [(kind, asked[kind]()) for kind in kinds]

    with ThreadPoolExecutor(6) as pool:
        answers = [answer for answers in pool.map(work, range(6)) for answer in answers]
    for kind, answer in answers:
        assert answer.status_code in allowed.get(kind, {200, 404}), (kind, answer.status_code, answer.text)
        assert str(server.studies) not in answer.text
        if kind in ("get", "look") and answer.status_code == 200:
            assert answer.content == (content if kind == "get" else drawn)
    assert {("get", 200), ("add", 200), ("add", 409), ("remove", 200)} <= {(k, a.status_code) for k, a in answers}
    asked["remove"]()


@pytest.mark.parametrize("part", ["bytes=0-3", "bytes=abc", "bytes=99999999-", "lines=1-2", "bytes=0-1,5-6"])
def test_a_part_of_a_file_is_all_of_it(server: Server, part: str) -> None:
    answer = requests.get(f"{server.url}/datastore/image?image=normal_1", headers={"Range": part}, timeout=30)
    assert answer.status_code == 200 and answer.content == (server.studies / "normal_1.nii.gz").read_bytes()


@pytest.mark.parametrize("image", ["no\ud800body", "x" * 5000, "..", "%00", "lesion_1/../lesion_1", "labels", "models"])
def test_ids_that_are_none_are_404_everywhere(server: Server, image: str) -> None:
    query = {"image": image.encode("utf-8", "surrogatepass"), "label": "x", "tag": "final"}
    for address in ("datastore/image", "datastore/image/info", "marks"):
        answer = requests.get(f"{server.url}/{address}", params=query, timeout=30)
        assert answer.status_code == 404 and "was not found in the studies" in answer.json()["detail"]
    assert requests.post(f"{server.url}/infer/mediclip", params=query, timeout=30).status_code == 404
    gone = requests.delete(f"{server.url}/datastore/image", params={"id": query["image"]}, timeout=30)
    assert gone.status_code == 404


@pytest.mark.parametrize("name", ["ü" * 100, "界" * 60, "a" * 161])
def test_names_that_a_disk_cannot_hold_are_refused(server: Server, name: str) -> None:
    with open(server.studies / "normal_1.nii.gz", "rb") as stream:
        answer = requests.put(
            f"{server.url}/datastore/image", params={"image": name}, files={"file": ("x.nii.gz", stream)}, timeout=30
        )
    assert answer.status_code == 400 and "image id" in answer.json()["detail"]


def test_colliding_uploads_lose_nothing(server: Server, client: Client, tmp_path: Path) -> None:
    """Two at once under one name: one is accepted, the other refused, and the file is one of them, whole."""
    contents = []
    for seed in (41, 42):
        write_volume(head(seed)[0], tmp_path / f"{seed}.nii.gz")
        contents.append((tmp_path / f"{seed}.nii.gz").read_bytes())
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda content: put_image(server, "twin.nii.gz", content), contents))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    winner = next(content for answer, content in zip(answers, contents, strict=True) if answer.status_code == 200)
    assert (server.studies / "twin.nii.gz").read_bytes() == winner
    requests.delete(f"{server.url}/datastore/image?id=twin", timeout=30)


def test_of_two_trainings_asked_for_at_once_one_starts(trained: list[dict], server: Server, client: Client) -> None:
    body = {**SMALL, "normal": ["normal_1"], "select": "never"}
    barrier = threading.Barrier(4)

    def ask(number: int) -> int:
        barrier.wait()
        address = f"{server.url}/train/mediclip"
        return requests.post(address, json={**body, "name": f"race-{number}"}, timeout=30).status_code

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(ask, range(4))) == [200, 429, 429, 429]
    children = psutil.Process(server.process.pid).children()
    assert len([child for child in children if "medclipad.server.training.worker" in child.cmdline()]) <= 1
    client.stop_training()
    assert not [name for name in client.info()["models"]["mediclip"]["versions"] if name.startswith("race")]


def test_a_json_body_cannot_fill_the_memory(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10) as connection:
        connection.sendall(
            b"POST /train/mediclip HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2000000\r\n"
            b"Content-Type: application/json\r\n\r\n"
        )
        answer = b"".join(iter(lambda: connection.recv(4096), b""))  # until the server closes
    assert b" 413 " in answer and b"1 MiB" in answer
    answer = requests.post(
        f"{server.url}/train/mediclip",
        data=iter([b" " * 500_000] * 4),  # sent in chunks, of unknown length
        headers={"Content-Type": "application/json"},
        timeout=30,
    )
    assert answer.status_code == 413 and "1 MiB" in answer.json()["detail"]


def test_cors_stays_closed(server: Server) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    for headers in (asked, {"Origin": server.url}):
        answer = requests.options(f"{server.url}/datastore/image", headers=headers, timeout=10)
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        assert answer.status_code in (403, 405)


def test_read_only_studies_and_the_rate_of_requests(tmp_path: Path) -> None:
    """One server with MONAI Label's READ_ONLY and a low rate."""
    studies = fill(tmp_path / "studies")
    server = Server(studies, MONAI_LABEL_DATASTORE_READ_ONLY="true", MEDCLIPAD_RATE="20", MEDCLIPAD_SCORING="off")
    try:
        before = {path: path.stat().st_mtime_ns for path in studies.rglob("*") if path.is_file()}
        mask = (studies / "labels" / "final" / "lesion_1.nii.gz").read_bytes()
        label, store = {"label": ("x.nii.gz", mask)}, f"{server.url}/datastore"
        refused = [
            put_image(server, "new.nii.gz", mask),
            requests.put(f"{store}/label?image=lesion_1", files=label, timeout=30),
            requests.put(f"{store}/image/info?image=lesion_1", data={"info": "{}"}, timeout=30),
            requests.put(f"{store}/label/info?label=lesion_1&tag=final", data={"info": "{}"}, timeout=30),
            requests.put(f"{server.url}/marks?image=lesion_1", json={"plane": "axial", "normal": [3]}, timeout=30),
            requests.delete(f"{store}/image?id=lesion_1", timeout=30),
            requests.delete(f"{store}/label?id=lesion_1&tag=final", timeout=30),
        ]
        assert [answer.status_code for answer in refused] == [403] * 7
        assert all("read-only" in answer.json()["detail"] for answer in refused)
        assert server.client.next_sample()["id"] in server.client.images()
        assert {path: path.stat().st_mtime_ns for path in before} == before
        assert {path for path in studies.iterdir() if path.suffix in (".gz", ".json", ".mha", ".nrrd")} <= set(before)

        def ask(_: int) -> requests.Response:
            return requests.get(f"{server.url}/versions/", timeout=60)

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(400)))
        slowed = [answer for answer in answers if answer.status_code == 429]
        assert slowed and all(int(answer.headers["Retry-After"]) >= 1 for answer in slowed)
        assert "Too many" in slowed[0].json()["detail"]
        assert {answer.status_code for answer in answers} == {200, 429}
    finally:
        server.stop()


def test_no_patient_and_no_token_in_the_log(tmp_path: Path) -> None:
    """Errors of every kind on files named after patients leave no name in the log at the default level."""
    token, patient = "correct-horse-battery", "Mustermann_Erika"
    studies = fill(tmp_path / "studies")
    for suffix, content in ((".nii.gz", b"nonsense"), (".nrrd", b"NRRD0004\n"), (".mha", b"NDims = 3\n")):
        (studies / f"{patient}_{suffix[1:3]}{suffix}").write_bytes(content)
    (studies / "labels" / "final" / f"{patient}_orphan.nii.gz").write_bytes(b"x")  # MONAI Label warns of it by name
    write_volume(head(51)[0], studies / f"{patient}.nii.gz")
    server = Server(studies, MEDCLIPAD_TOKEN=token)
    try:
        client = Client(server.url, token)
        client.infer("mediclip", patient)
        for image in client.images():
            if image.startswith(f"{patient}_"):
                with pytest.raises(ServerError):
                    client.infer("mediclip", image)
        client.train("mediclip", {**SMALL, "normal": [f"{patient}_ni"]})
        with pytest.raises(ServerError, match=patient):
            client.wait_trained(seconds=120)
        with pytest.raises(ServerError):
            client.save_label(patient, studies / f"{patient}_ni.nii.gz")
        requests.get(f"{server.url}/info/", headers={"Authorization": f"Bearer {token}x"}, timeout=10)
        requests.get(f"{server.url}/info/?token={token}&image={patient}", timeout=10)
        children = psutil.Process(server.process.pid).children()
        assert not [word for child in children for word in child.cmdline() if patient in word]
    finally:
        server.stop()
    for secret in (token, patient, "Mustermann", "Erika", "Traceback"):
        assert secret not in server.log, server.log


def test_the_rate_limit_counts_by_address_in_bounded_memory() -> None:
    from medclipad.server.security.rate_limit import MAX_ADDRESSES, RateLimit

    limit = RateLimit(10)
    assert [limit.wait("a") for _ in range(50)] == [0.0] * 50
    assert 0 < limit.wait("a") <= 0.1 and limit.wait("b") == 0.0
    for number in range(3 * MAX_ADDRESSES):
        limit.wait(f"10.0.{number}")
    assert len(limit) == MAX_ADDRESSES
    assert all(RateLimit(0).wait("a") == 0 for _ in range(10_000))


def test_a_wrong_rate_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from medclipad.server.security.rate_limit import RATE, RateLimit

    for wrong in ("-1", "nan", "inf", "many"):
        monkeypatch.setenv(RATE, wrong)
        with pytest.raises(MedCLIPADError, match="MEDCLIPAD_RATE must be a number"):
            RateLimit.from_environment()


def test_a_full_disk_is_507(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medclipad.server.errors import RequestError
    from medclipad.server.security.upload_limits import check_free_space

    check_free_space(tmp_path, 1000)
    with pytest.raises(RequestError, match="disk is full") as caught:
        check_free_space(tmp_path, 2**60)
    assert caught.value.status == 507


def test_every_error_is_one_json_sentence(server: Server) -> None:
    for method, address in (("GET", "nowhere"), ("PATCH", "info/"), ("GET", "progress/x"), ("POST", "datastore/")):
        answer = requests.request(method, f"{server.url}/{address}", timeout=10)
        assert 400 <= answer.status_code < 500 and isinstance(answer.json()["detail"], str)
    assert json.loads(requests.get(f"{server.url}/openapi.json", timeout=10).text)["info"]["title"] == "MedCLIPAD"
