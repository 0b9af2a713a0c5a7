"""The main job on real parts: `python -m sample_data.demo OUT`.

Makes the sample study, starts `medclipad serve` as its own process, and as a client over HTTP trains MediCLIP on the
normal volumes and fetches the anomaly maps of the abnormal ones. OUT receives the maps, report.html and report.json.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from medclipad.cli.terminal import metrics_table, progress_bar
from medclipad.client import Client
from medclipad.detection.result import AnomalyResult
from medclipad.detection.slice_frames import FramedVolume
from medclipad.errors import MedCLIPADError
from medclipad.evaluation.cases import CaseEvaluation, score_case
from medclipad.evaluation.report import CaseReport, write_report
from medclipad.volume import Volume, read_volume
from sample_data.make_study import StudyCase, make_study

STUDY = Path(__file__).parent / "study"
METHOD = "mediclip"
MARK = ".demo"  # tells a folder of ours, finished or not, from one that must not be emptied
TRAINING = {"encoder": "embedded", "shots": 240, "seed": 0, "name": "demo"}


def demo(out: Path) -> list[CaseEvaluation]:
    """Do the main job into the folder `out`, whose earlier contents are replaced; returns the figures of each case."""
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise MedCLIPADError(f"{out} holds other files: choose another folder for the demo.")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARK).touch()
    with progress_bar() as progress:
        study = make_study(STUDY, progress=progress)
    normal = [case for case in study if case.truth is None]
    abnormal = [case for case in study if case.truth is not None]
    with server(STUDY / "images", out / "models") as address:
        client = Client(address)
        info = client.info()
        print(f"{info['name']} at {address}: methods {', '.join(info['trainers'])}; {len(client.images())} images")
        seconds = train(client, [case.id for case in normal])
        print(f"Trained on the normal volumes in {seconds:.0f} s, the start of the training process included.")
        figures, reports = [], []
        for case in abnormal:
            report, measured = detect(client, case, out)
            figures.append(measured)
            reports.append(report)
    metrics_table(figures)
    notes = (
        f"Simulated study: {len(normal)} normal volumes to learn from, {len(abnormal)} with simulated lesions. "
        f"MediCLIP, embedded encoder, trained in {seconds:.0f} s. Nothing here says how well it does on patients."
    )
    with progress_bar() as progress:
        progress("report", 0, 1, {})
        write_report(out, reports, title="MedCLIPAD demo", notes=notes)
    print(f"Maps, report.html and report.json are in {out}/")
    return figures


def train(client: Client, normal: list[str]) -> float:
    """Train on the volumes with these ids, showing progress; returns the seconds that it took."""
    start = time.perf_counter()
    with progress_bar() as progress:
        client.train(METHOD, {**TRAINING, "normal": normal})
        client.wait_trained(lambda now: _show(now, progress))
    return time.perf_counter() - start


def _show(now: dict, progress: Callable) -> None:
    if now.get("phase"):  # the training process takes some seconds before it reports
        progress(now["phase"], now["done"], now["total"] or None, now.get("info", {}))


def detect(client: Client, case: StudyCase, out: Path) -> tuple[CaseReport, CaseEvaluation]:
    """Fetch the map of one case into `out` as <case>_anomaly.nii.gz and measure it against the truth."""
    with progress_bar(case.id) as progress:
        fetched, scores = client.infer(
            METHOD,
            case.id,
            {"result": "map"},
            folder=out,
            progress=lambda now: progress(now["phase"], now["done"], now["total"], {}),
        )
    path = fetched.rename(out / f"{case.id}_anomaly.nii.gz")
    volume, truth = read_volume(case.image), read_volume(case.truth)
    result = as_result(volume, read_volume(path), scores)
    measured = score_case(volume, truth, result, scores["seconds"])
    report = CaseReport(
        volume=volume,
        result=result,
        truth=truth,
        evaluation=measured,
        description=case.description,
    )
    return report, measured


def as_result(volume: Volume, anomaly_map: Volume, scores: dict) -> AnomalyResult:
    """The result that the server sent as a file and a dictionary, as the library would have returned it."""
    framed = FramedVolume(volume, scores["plane"], "auto", size=1)
    return AnomalyResult(
        anomaly_map=volume.with_array(anomaly_map.array),
        slice_scores=np.array([np.nan if score is None else score for score in scores["slice_scores"]]),
        foreground=framed.foreground,
        threshold=scores["threshold"],
        slicing=framed.slicing,
        detector=scores["detector"],
        window=framed.window,
    )


@contextmanager
def server(studies: Path, models: Path) -> Iterator[str]:
    """`medclipad serve` in a process of its own on a free loopback port; yields its address, stops it cleanly."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "medclipad",
        "serve",
        "--studies",
        studies,
        "--models",
        models,
        "--port",
        str(port),
    ]
    with (models.parent / "server.log").open("wb") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT)
        try:
            with progress_bar() as progress:
                progress("start server", 0, 1, {})
                Client(f"http://127.0.0.1:{port}").wait_ready(seconds=120)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
            try:
                code = process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
    if code:
        raise MedCLIPADError(f"The server ended with exit code {code}: see {models.parent / 'server.log'}.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sample_data.demo", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the results")
    try:
        demo(parser.parse_args().out)
    except MedCLIPADError as error:
        sys.exit(f"demo: {error}")


if __name__ == "__main__":
    main()
