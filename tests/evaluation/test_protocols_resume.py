"""An interrupted benchmark, run again, gives the figures of an uninterrupted one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from protocol_trees import SHOTS

from medclipad.errors import Cancelled, TrainingError
from medclipad.evaluation.protocols.run import STATE, train_and_test
from medclipad.evaluation.protocols.tables import record
from medclipad.methods.common.benchmark_settings import Settings
from medclipad.methods.mediclip import benchmark as mediclip
from medclipad.methods.mvfa import benchmark as mvfa

COMMAND = Path(sys.executable).with_name("medclipad")
EPOCHS = 6


def few_shot(tree, **changed) -> mvfa.FewShot:
    given = {"shots": SHOTS, "encoder": "embedded", "image_size": 64, "epochs": EPOCHS, "learning_rate": 1e-3}
    return mvfa.FewShot(tree, tree / "fewshot_seed", Settings(**{"class_name": "Brain", **given, **changed}))


@pytest.mark.long
def test_killed_run_is_resumed(bmad_tree, tmp_path):
    """kill -9 in the middle of an epoch, then the same command again, compared with an uninterrupted run."""
    command = [str(COMMAND), "benchmark", "--protocol", "mvfa", "--data", str(bmad_tree), "--class", "Brain",
               "--shots", str(SHOTS), "--encoder", "embedded", "--image-size", "64", "--epochs", str(EPOCHS),
               "--out", str(tmp_path / "killed")]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    state = tmp_path / "killed" / STATE
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not state.exists():
        assert process.poll() is None and time.monotonic() < deadline, "the run ended before the first epoch"
        time.sleep(0.02)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = json.loads(torch.load(state, weights_only=True)["history"])["epoch"]
    assert 1 <= done < EPOCHS and not (tmp_path / "killed" / "results.json").exists()

    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=600)
    found = json.loads((tmp_path / "killed" / "results.json").read_text())
    whole = train_and_test(few_shot(bmad_tree), tmp_path / "whole")
    assert found["figures"] == whole.figures and found["losses"] == whole.history.losses
    assert found["evaluations"] == whole.history.evaluations and len(found["losses"]) == EPOCHS
    scores = [float(line.split(",")[2]) for line in (tmp_path / "killed" / "scores.csv").read_text().split()[1:]]
    assert scores == whole.scores.images.tolist()


@pytest.mark.parametrize("experiment", ["zero", "mediclip"])
def test_cancelled_run_is_resumed(bmad_tree, mediclip_tree, tiny_clip, tmp_path, experiment):
    """The other two experiments, stopped in the second epoch."""

    def make():
        settings = {"encoder": tiny_clip, "image_size": 64, "epochs": 3, "learning_rate": 1e-3}
        if experiment == "zero":
            return mvfa.ZeroShot(bmad_tree, Settings(class_name="Brain", shots=0, max_images=1, **settings))
        return mediclip.MediCLIPProtocol(mediclip_tree, Settings(class_name="busi", shots=4, **settings))

    def stop(phase: str, done: int, total: int, info: dict) -> None:
        if phase == "train and test" and done > 0.5 * total:
            raise Cancelled("stop.")

    with pytest.raises(Cancelled):
        train_and_test(make(), tmp_path / "stopped", stop)
    reports = []
    outcome = train_and_test(make(), tmp_path / "stopped", lambda *report: reports.append(report))
    whole = train_and_test(make(), tmp_path / "whole")
    assert outcome.figures == whole.figures and outcome.history.losses == whole.history.losses
    assert outcome.scores.images.tolist() == whole.scores.images.tolist()
    assert reports[0][1] == reports[0][2] / 3, "one epoch of three was done"
    again = train_and_test(make(), tmp_path / "whole")
    assert again.figures == whole.figures, "a finished run only tests"


def test_another_run_is_not_continued(bmad_tree, tmp_path):
    train_and_test(few_shot(bmad_tree, epochs=1, max_images=1), tmp_path)
    with pytest.raises(TrainingError, match=r"holds a run with other settings \(seed 111, now 7\): .*another --out"):
        train_and_test(few_shot(bmad_tree, epochs=1, max_images=1, seed=7), tmp_path)
    (tmp_path / STATE).write_bytes(b"PK\3\4 no state")
    with pytest.raises(TrainingError, match=r"not a benchmark's state, or damaged: remove it"):
        train_and_test(few_shot(bmad_tree, epochs=1, max_images=1), tmp_path)
    assert (tmp_path / STATE).read_bytes() == b"PK\3\4 no state", "an unreadable file is left as it is"


def test_other_pictures_and_foreign_states_are_not_continued(mediclip_tree, tmp_path):
    """Neither a picture or mask with other content, nor weights of another shape, continue a run."""

    def run() -> None:
        settings = Settings(class_name="busi", shots=1, encoder="embedded", image_size=64, epochs=1, learning_rate=1e-3)
        train_and_test(mediclip.MediCLIPProtocol(tmp_path / "data", settings), tmp_path / "out")

    shutil.copytree(mediclip_tree / "busi", tmp_path / "data" / "busi")
    run()
    for folder in ("abnormal", "ground_true"):
        file = sorted((tmp_path / "data" / "busi" / "images" / "test" / folder).iterdir())[0]
        content = file.read_bytes()
        Image.fromarray(np.asarray(Image.open(file))[::-1]).save(file)
        with pytest.raises(TrainingError, match=r"other settings \(pictures"):
            run()
        file.write_bytes(content)
    file = tmp_path / "out" / STATE
    state = torch.load(file, weights_only=True)
    for key, value in (("weights", {"prompts.vectors": torch.zeros(3, 3)}), ("optimisers", {}), ("draws", "[]")):
        torch.save({**state, key: value}, file)
        with pytest.raises(TrainingError, match="not a benchmark's state, or damaged"):
            run()
    torch.save(state, file)
    run()


def test_duplicate_pictures_are_reported(bmad_tree, mediclip_tree, tmp_path):
    """They are leakage between training and test set, and reported; the run goes on, as in the reference."""
    shutil.copytree(bmad_tree / "Brain_AD", tmp_path / "Brain_AD")
    good = tmp_path / "Brain_AD" / "test" / "good" / "img"
    shot = (bmad_tree / "fewshot_seed" / "Brain" / f"{SHOTS}-shot.txt").read_text().split("n-0: ")[1].split()[0]
    shutil.copy(tmp_path / "Brain_AD" / "valid" / "good" / "img" / shot, good / "again.png")
    shutil.copy(sorted(good.iterdir())[0], good / "twice.png")
    settings = Settings(
        class_name="Brain", shots=SHOTS, encoder="embedded", image_size=64, epochs=1, learning_rate=1e-3
    )
    made = mvfa.FewShot(tmp_path, bmad_tree / "fewshot_seed", settings)
    assert made.duplicates == [
        f"1 of the {len(made.tests)} test pictures are training pictures too.",
        "1 test pictures are there more than once.",
    ]
    assert few_shot(bmad_tree).duplicates == []
    lines = (mediclip_tree / "busi" / "samples" / "train.json").read_text().splitlines()
    data = Path(shutil.copytree(mediclip_tree / "busi", tmp_path / "data" / "busi"))
    (data / "samples" / "train.json").write_text(f"{lines[0]}\n{lines[0]}\n")
    settings = replace(settings, class_name="busi")
    twice = mediclip.MediCLIPProtocol(data.parent, settings)
    assert twice.duplicates == ["1 training pictures are there more than once."]
    outcome = train_and_test(twice, tmp_path / "out")
    assert record(mediclip.MediCLIPBenchmark(), twice, outcome)["leakage"][-1:] == twice.duplicates
