"""Faults that a server must survive: kills at any moment, full and read-only disks, and many clients at once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from live_server import SHAPE, SMALL, Server, fill, head

from medclipad.client import Client, ServerError
from medclipad.volume import PLANES, Volume, read_volume, write_volume

IMAGES = ("normal_1", "normal_2", "lesion_1", "lesion_2")


class Reader:
    """Client that saves labels and trains without end, and remembers what the server acknowledged."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._grid = head(0)[0]
        self.attempted: dict[str, list[int]] = {image: [] for image in IMAGES}  # since the last acknowledged one
        self.saved: dict[str, int] = {}
        self.versions: set[str] = set()
        self.count: Counter[str] = Counter()

    def mask(self, number: int) -> np.ndarray:
        """Return a label that is different for every number."""
        return (np.random.default_rng(number).random(SHAPE) < 0.05).astype(np.uint8)

    def save_labels(self, server: Server, stop: threading.Event) -> None:
        client = Client(server.url, timeout=20)
        while not stop.is_set():
            number = self.count["attempts"] = self.count["attempts"] + 1
            image = IMAGES[number % len(IMAGES)]
            path = self._folder / f"label{('.nii.gz', '.nrrd')[number % 2]}"
            write_volume(self._grid.with_array(self.mask(number)), path)
            self.attempted[image].append(number)
            try:
                client.save_label(image, path)
            except ServerError:
                continue
            self.saved[image], self.attempted[image] = number, []
            self.count["labels"] += 1

    def train(self, server: Server, stop: threading.Event) -> None:
        client = Client(server.url, timeout=20)
        while not stop.is_set():
            try:
                body = {**SMALL, "shots": 2, "epochs": 1, "held_out": 0, "normal": ["normal_1"], "select": "always"}
                client.train("mediclip", {**body, "memory_size": 50})
                version = client.wait_trained(seconds=120)["info"]["version"]
            except (ServerError, KeyError):
                stop.wait(0.3)
                continue
            self.versions.add(version)
            self.count["trainings"] += 1

    def check(self, server: Server) -> None:
        """Everything that was acknowledged is there and whole."""
        objects = server.client.json("GET", "/datastore/", params={"output": "all"})["objects"]
        for image, number in self.saved.items():
            assert "final" in objects[image]["labels"], image
            path = server.client.download_label(image, "final", self._folder / f"back{self._suffix(server, image)}")
            array = read_volume(path).array
            possible = [number, *self.attempted[image]]
            assert any(np.array_equal(array, self.mask(each)) for each in possible), f"{image}: not what was saved"
            self.saved[image] = next(each for each in possible if np.array_equal(array, self.mask(each)))
            self.attempted[image] = []
        known = server.client.versions()["mediclip"]
        assert self.versions <= {version["name"] for version in known["versions"]}
        _, scores = server.client.infer("mediclip", "normal_2")
        assert scores["detector"] == known["current"]
        if self.versions:
            assert known["current"] != "starter"
        leftovers = [path for path in server.studies.rglob(".*") if path.name != ".lock"]
        assert not [path for path in leftovers if ".part" in path.name or "incoming" in path.name], leftovers

    def _suffix(self, server: Server, image: str) -> str:
        name = next((server.studies / "labels" / "final").glob(f"{image}.*")).name
        return name[len(image) :]


def kill_often(kills: int, folder: Path, seed: int, patience: float = 1.4) -> Reader:
    """Kill the server, or its training process, `kills` times at random moments of a reader's work.

    patience: longest time between two kills, in durations of a training on this machine.
    """
    draw = random.Random(seed)
    studies, reader, pace = fill(folder / "studies"), Reader(folder), 0.0
    while reader.count["server"] + reader.count["child"] < kills:
        server = Server(studies, MEDCLIPAD_SCORING="off")
        stop = threading.Event()
        work = [threading.Thread(target=task, args=(server, stop)) for task in (reader.save_labels, reader.train)]
        try:
            reader.check(server)
            for thread in work:
                thread.start()
            began = time.monotonic()
            while not reader.versions and time.monotonic() < began + 300:  # there is to be one that can be lost
                time.sleep(0.1)
            pace = pace or time.monotonic() - began  # of a training on this machine: some come to their end
            while True:
                time.sleep(draw.uniform(0.05, patience) * pace)
                if draw.random() < 0.3:
                    break
                for child in psutil.Process(server.process.pid).children():
                    child.kill()
                    reader.count["child"] += 1
                assert server.client.info()["name"] == "MedCLIPAD", "a training's end is not the server's"
        finally:
            server.process.send_signal(signal.SIGKILL)
            stop.set()
            for thread in work:
                if thread.ident is not None:  # it was started
                    thread.join(60)
            server.process.wait(30)
        reader.count["server"] += 1
        print(f"survived {dict(reader.count)}", flush=True)
    last = Server(studies, MEDCLIPAD_SCORING="off")
    try:
        reader.check(last)
    finally:
        last.stop()
    return reader


def test_killed_at_random_moments(tmp_path: Path) -> None:
    reader = kill_often(3, tmp_path, seed=1, patience=0.5)
    assert reader.count["labels"] > 0 and reader.versions


@pytest.mark.long
def test_killed_fifty_times(tmp_path: Path) -> None:
    reader = kill_often(50, tmp_path, seed=2)
    assert reader.count["labels"] > 50 and reader.count["trainings"] > 0 and reader.count["child"] > 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_costs_nothing_that_was_there(small_disk: Path, tmp_path: Path) -> None:
    studies, models = fill(tmp_path / "studies"), small_disk / "models"
    server = Server(studies, "--models", str(models), MEDCLIPAD_SCORING="off")
    try:
        client = server.client
        small = {**SMALL, "memory_size": 100, "normal": ["normal_1"], "select": "always"}
        client.train("mediclip", {**small, "name": "before"})
        client.wait_trained(seconds=120)
        free = shutil.disk_usage(small_disk).free
        (small_disk / "filler").write_bytes(bytes(free - 300 * 1024))
        client.train("mediclip", {**SMALL, "normal": ["normal_1"], "name": "too_large"})  # 4000 tokens: 1.2 MB
        with pytest.raises(ServerError, match=r"could not be saved.*[Ss]pace"):
            client.wait_trained(seconds=120)
        path, scores = client.infer("mediclip", "lesion_1", {"result": "map"})
        assert scores["detector"] == "before" and read_volume(path).shape == SHAPE, "what served before still serves"
        assert not [*(models / "mediclip").glob(".*")], "half a version was left"
        (small_disk / "filler").unlink()
        client.train("mediclip", {**small, "name": "after"})
        assert client.wait_trained(seconds=120)["outcome"]["selected"], "with room again, it goes on"
    finally:
        server.stop()
    assert "Traceback" not in server.log, server.log


def test_studies_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    studies = fill(small_disk / "studies")
    server = Server(studies, "--models", str(tmp_path / "models"), MEDCLIPAD_SCORING="off")
    try:
        client, label = server.client, (studies / "labels" / "final" / "lesion_1.nii.gz")
        before = label.read_bytes()
        (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 4096))
        write_volume(head(61)[0], tmp_path / "new.nii.gz")
        write_volume(head(3, True)[1], tmp_path / "label.nii.gz")
        for send in (
            lambda: client.upload_image(tmp_path / "new.nii.gz"),
            lambda: client.save_label("lesion_1", tmp_path / "label.nii.gz"),
            lambda: client.set_image_info("lesion_1", {"note": "x" * 100_000}),
        ):
            with pytest.raises(ServerError, match="disk is full") as caught:
                send()
            assert caught.value.status == 507
        assert label.read_bytes() == before and "new" not in client.images()
        assert client.infer("mediclip", "lesion_1")[1]["volume_score"] > 0
    finally:
        server.stop()
    assert "Traceback" not in server.log, server.log


@pytest.fixture
def read_only(tmp_path: Path, trained: list[dict], server: Server) -> Iterator[Path]:
    """A models folder on a read-only file system, with a trained version."""
    models, shown = tmp_path / "source", tmp_path / "models"
    shutil.copytree(server.studies / "models", models)
    shown.mkdir()
    commands = [["mount", "--bind", models, shown], ["mount", "-o", "remount,ro,bind", shown]]
    if os.geteuid() != 0:
        pytest.skip("only root can mount a read-only disk")
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no read-only disk can be mounted here: {done.stderr.strip()}")
    yield shown
    subprocess.run(["umount", "-l", shown], check=True)


def test_a_read_only_models_folder_serves_and_says_why_it_does_not_train(read_only: Path, tmp_path: Path) -> None:
    server = Server(fill(tmp_path / "studies"), "--models", str(read_only), MEDCLIPAD_SCORING="off")
    try:
        current = server.client.versions()["mediclip"]["current"]
        assert server.client.infer("mediclip", "lesion_1")[1]["detector"] == current
        with pytest.raises(ServerError, match="cannot store a detector") as caught:
            server.client.train("mediclip", {"normal": ["normal_1"]})
        assert caught.value.status == 409
        with pytest.raises(ServerError, match="may not write") as caught:
            server.client.select_version("mediclip", "starter")
        assert caught.value.status == 507
    finally:
        server.stop()
    assert "Traceback" not in server.log, server.log


def crowd(server: Server, clients: int, each: int) -> tuple[dict[str, list[float]], int]:
    """(latencies in seconds by kind of request, peak memory in bytes) of clients that ask for this and that at once."""
    times: dict[str, list[float]] = {}
    peak, over = [0], threading.Event()
    lock = threading.Lock()
    mask = server.studies.parent / "crowd.nii.gz"
    write_volume(head(3, True)[1], mask)

    def watch() -> None:
        process = psutil.Process(server.process.pid)
        while not over.wait(0.1):
            peak[0] = max(peak[0], process.memory_info().rss)

    def work(number: int) -> None:
        client, draw = Client(server.url, timeout=300), random.Random(number)
        kinds = {
            "info": client.info,
            "images": client.images,
            "versions": client.versions,
            "scoring": client.scoring,
            "next": lambda: client.next_sample(draw.choice(["random", "most_anomalous", "most_diverse"])),
            "infer": lambda: client.infer("mediclip", draw.choice(IMAGES), {"plane": draw.choice(PLANES[:2])}),
            "label": lambda: client.save_label(draw.choice(IMAGES[2:]), mask),
            "marks": lambda: client.set_marks(draw.choice(IMAGES[:2]), "axial", normal=[draw.randrange(5, 15)]),
            "download": lambda: client.download_label("lesion_1", "final", mask.with_name(f"down{number}.nii.gz")),
        }
        for _ in range(each):
            kind = draw.choice(list(kinds))
            started = time.perf_counter()
            kinds[kind]()
            with lock:
                times.setdefault(kind, []).append(time.perf_counter() - started)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(clients) as pool:
            for done in [pool.submit(work, number) for number in range(clients)]:
                done.result()
    finally:
        over.set()
        watcher.join()
    return times, peak[0]


def tell(times: dict[str, list[float]], peak: int) -> None:
    for kind, values in sorted(times.items()):
        median, high = np.percentile(values, [50, 95]) * 1000
        print(f"{kind:10} {len(values):4} requests: median {median:7.1f} ms, 95 % {high:7.1f} ms")
    print(f"peak memory {peak / 1024**2:.0f} MiB")


def test_several_clients_at_once(trained: list[dict], server: Server) -> None:
    try:
        times, peak = crowd(server, clients=4, each=15)
    finally:
        for image in IMAGES[:2]:
            server.client.json("PUT", "/marks", params={"image": image}, json={})
    assert sum(map(len, times.values())) == 60 and peak < 3 * 1024**3


@pytest.mark.long
def test_eight_clients_two_hundred_requests_each(tmp_path: Path) -> None:
    server = Server(fill(tmp_path / "studies"))
    try:
        warm = crowd(server, clients=8, each=25)[1]
        times, peak = crowd(server, clients=8, each=200)
        tell(times, peak)
        assert sum(map(len, times.values())) == 1600 and peak < 3 * 1024**3
        assert peak < 1.5 * warm, "memory grows with the number of requests"
    finally:
        server.stop()
    assert "Traceback" not in server.log, server.log


@pytest.mark.long
def test_info_answers_fast_while_a_volume_is_analysed(tmp_path: Path) -> None:
    server = Server(fill(tmp_path / "studies"), MEDCLIPAD_SCORING="off")
    try:
        small, _ = head(71)
        write_volume(Volume(np.tile(small.array, (1, 1, 25)), small.affine), tmp_path / "large.nii.gz")
        server.client.upload_image(tmp_path / "large.nii.gz")
        server.client.infer("mediclip", "normal_1")  # torch and the encoder are loaded
        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(Client(server.url, timeout=600).infer, "mediclip", "large")
            latencies = []
            while not work.done():
                started = time.perf_counter()
                server.client.info()
                latencies.append(time.perf_counter() - started)
                time.sleep(0.05)
            work.result()
        median, high = np.percentile(latencies, [50, 95]) * 1000
        print(f"GET /info/ during inference: {len(latencies)} times, median {median:.0f} ms, 95 % {high:.0f} ms")
        assert median < 100
    finally:
        server.stop()


@pytest.mark.long
def test_sixteen_shots_are_retrained_and_serve(tmp_path: Path) -> None:
    """Seconds from POST /train to the new version's first answer; the goal is 30 on two idle cores."""
    server = Server(fill(tmp_path / "studies"), MEDCLIPAD_SCORING="off")
    try:
        started = time.perf_counter()
        server.client.train("mediclip", {"shots": 16, "select": "always"})
        done = server.client.wait_trained(seconds=300)
        served = server.client.infer("mediclip", "lesion_1")[1]["detector"]
        seconds = time.perf_counter() - started
        print(f"16 shots retrained and serving after {seconds:.1f} s: {done['outcome']['verdict']}")
        assert served == done["outcome"]["version"]
        if os.getloadavg()[0] < 2.5:  # the goal holds for idle cores
            assert seconds < 30
    finally:
        server.stop()
