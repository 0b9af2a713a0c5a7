"""Detect simulated lesions over HTTP, from an empty folder to a report: `python -m sample_data.demo OUT`.

The demo makes the sample study, starts `medclipad serve` in a process of its own, trains MediCLIP on the normal volumes
and fetches the anomaly maps of the abnormal ones as a client would. OUT receives the maps, report.html and report.json.
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
from dataclasses import replace
from pathlib import Path
from typing import Any

from medclipad.cli.terminal import print_metrics, progress_bar
from medclipad.client import Client
from medclipad.detection.calibration import Calibration
from medclipad.detection.result import AnomalyResult
from medclipad.detection.slice_frames import FramedVolume
from medclipad.detection.storage import read_info
from medclipad.encoders import default_encoder
from medclipad.errors import MedCLIPADError
from medclipad.evaluation.cases import CaseEvaluation, score_case
from medclipad.evaluation.report import CaseReport, write_report
from medclipad.volume import Volume, read_volume
from sample_data.make_study import StudyCase, make_study

STUDY = Path(__file__).parent / "study"
METHOD = "mediclip"
MARK = ".demo"  # a folder with this file was made by the demo, and may be emptied
TRAINING = {"encoder": default_encoder(), "seed": 0, "select": "always", "name": "demo"}


def demo(out: Path) -> list[CaseEvaluation]:
    """Run the demo and return the metrics of each abnormal case.

    Parameters
    ----------
    out
        Folder for the results. Those of an earlier demo are replaced.

    Raises
    ------
    MedCLIPADError
        If the folder holds other files, or the server does not start.
    """
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
        reports = [detect(client, case, out, out / "models") for case in abnormal]
    evaluations = [report.evaluation for report in reports]
    print_metrics(evaluations)
    notes = (
        f"Simulated study: {len(normal)} normal volumes to learn from, {len(abnormal)} with simulated lesions. "
        f"MediCLIP, {TRAINING['encoder']} encoder, trained in {seconds:.0f} s. The metrics say nothing about patients."
    )
    with progress_bar() as progress:
        progress("report", 0, 1, {})
        write_report(out, reports, title="MedCLIPAD demo", notes=notes)
    print(f"Maps, report.html and report.json are in {out}/")
    return evaluations


def train(client: Client, normal: list[str]) -> float:
    """Train on the volumes with these ids, showing progress; return the seconds that it took."""
    start = time.perf_counter()
    with progress_bar() as progress:
        client.train(METHOD, {**TRAINING, "normal": normal})
        client.wait_trained(lambda status: _show(status, progress))
    return time.perf_counter() - start


def _show(status: dict[str, Any], progress: Callable) -> None:
    if status.get("phase"):  # the training process takes some seconds before it reports
        progress(status["phase"], status["done"], status["total"] or None, status.get("info", {}))


def detect(client: Client, case: StudyCase, out: Path, models: Path) -> CaseReport:
    """Fetch the map of an abnormal case into `out` as <case>_anomaly.nii.gz and compare it with the truth."""
    if case.truth is None:
        raise ValueError(f"{case.id} has no lesion")
    with progress_bar(case.id) as progress:
        fetched, scores = client.infer(
            METHOD,
            case.id,
            {"result": "map"},
            folder=out,
            progress=lambda status: progress(status["phase"], status["done"], status["total"], {}),
        )
    path = fetched.rename(out / f"{case.id}_anomaly.nii.gz")
    volume, truth = read_volume(case.image), read_volume(case.truth)
    calibration = read_info(models / METHOD / scores["detector"]).calibration
    result = as_result(volume, read_volume(path), scores, calibration)
    return CaseReport(
        volume=volume,
        result=result,
        truth=truth,
        evaluation=score_case(volume, truth, result, scores["seconds"]),
        description=case.description,
    )


def as_result(volume: Volume, anomaly_map: Volume, scores: dict[str, Any], calibration: Calibration) -> AnomalyResult:
    """Return the server's answer, a file and a dictionary, as the library's own result."""
    framed = FramedVolume(volume, scores["plane"], "auto", size=1)
    result = AnomalyResult.from_summary(volume.with_array(anomaly_map.array), framed.slicing, scores, calibration)
    return replace(result, foreground=framed.foreground, window=framed.window)


@contextmanager
def server(studies: Path, models: Path) -> Iterator[str]:
    """Run `medclipad serve` in a process of its own on a free loopback port, and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "medclipad", "serve"]
    command += ["--studies", str(studies), "--models", str(models), "--port", str(port)]
    with (models.parent / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
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
    """Run the demo from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sample_data.demo",
        description="Detect simulated lesions over HTTP, from an empty folder to a report.",
    )
    parser.add_argument("out", type=Path, help="folder for the results")
    try:
        demo(parser.parse_args().out)
    except MedCLIPADError as error:
        sys.exit(f"demo: {error}")


if __name__ == "__main__":
    main()
