"""`medclipad benchmark --ablate`: each ablation of each method, resumed, and refused where it does not exist."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import typer
from protocol_trees import SHOTS

from medclipad.cli import benchmark as cli_benchmark
from medclipad.cli.benchmark_runs import Runs
from medclipad.cli.main import main
from medclipad.errors import MedCLIPADError
from medclipad.evaluation.protocols.run import STATE
from medclipad.methods import get_method
from medclipad.methods.common.benchmark_settings import Settings
from medclipad.methods.mediclip.benchmark import MediCLIPBenchmark

COMMAND = Path(sys.executable).with_name("medclipad")
SIZE, EPOCHS = 64, 6
CASES = {  # the method's arms, in the order of its table; that of the whole method comes last
    ("mvfa", "levels"): ["level 1", "level 2", "level 3", "level 4", "all levels"],
    ("mvfa", "adapters"): ["projection", "adapters"],
    ("mvfa", "losses"): ["without bce", "without focal", "without dice", "all losses"],
    ("mvfa", "shots"): ["1-shot", "2-shot"],
    ("mediclip", "prompts"): ["neither", "learnable tokens", "adapters", "learnable tokens and adapters"],
    ("mediclip", "synthesis"): [
        "cutpaste", "gauss", "source", "cutpaste + gauss", "cutpaste + source", "gauss + source", "all tasks",
    ],
    ("mediclip", "losses"): ["without focal", "without dice", "all losses"],
    ("mediclip", "shots"): ["1-shot", "2-shot", "4-shot"],
}  # fmt: skip


@pytest.fixture(scope="module")
def benchmark():
    """Return `benchmark(*arguments)`, which runs the command in this process."""
    app = typer.Typer()
    app.command()(cli_benchmark.benchmark)
    return lambda *arguments: app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture
def seeds(bmad_tree, tmp_path) -> Path:
    """Return seed files of Brain for one and for two shots."""
    folder = tmp_path / "seeds" / "Brain"
    shutil.copytree(bmad_tree / "fewshot_seed" / "Brain", folder)
    lines = [line.split() for line in (folder / f"{SHOTS}-shot.txt").read_text().splitlines()]
    (folder / "1-shot.txt").write_text("\n".join(f"{key} {first}" for key, first, *_ in lines))
    return folder.parent


@pytest.fixture
def common(bmad_tree, mediclip_tree, seeds):
    """Return `common(method, encoder)`, the arguments of a quick run."""
    data = {
        "mvfa": (bmad_tree, "--class", "Brain", "--fewshot-seed", seeds),
        "mediclip": (mediclip_tree, "--class", "busi"),
    }
    return lambda method, encoder: (
        "--protocol", method, "--data", *data[method], "--encoder", encoder, "--image-size", SIZE, "--epochs", 1,
        "--max-images", 1, "--seed", 2,
    )  # fmt: skip


def test_every_ablation_is_tested_here(bmad_tree, mediclip_tree, seeds, tiny_clip):
    found = set()
    for method, data, class_name in (("mvfa", bmad_tree, "Brain"), ("mediclip", mediclip_tree, "busi")):
        settings = Settings(class_name, SHOTS, tiny_clip, SIZE, 1, 1e-3)
        found |= {(method, name) for name in get_method(method).benchmark().ablations(data, settings, seeds)}
    assert found == set(CASES)


@pytest.mark.parametrize(("method", "name"), CASES)
def test_table(common, tmp_path, tiny_clip, benchmark, capsys, monkeypatch, method, name):
    monkeypatch.setenv("COLUMNS", "160")
    out, arms = tmp_path / "out", CASES[method, name]
    shots = () if name == "shots" else ("--shots", {"mvfa": SHOTS, "mediclip": 6}[method])
    benchmark(*common(method, tiny_clip), *shots, "--ablate", name, "--out", out)
    output = capsys.readouterr().out
    table = output.splitlines()
    heading = next(index for index, line in enumerate(table) if line.startswith(name))
    assert [line.split("  ")[0] for line in table[heading + 1 : heading + 1 + len(arms)]] == arms
    assert ("Left out on" in output) == (name == "shots")

    content = json.loads((out / f"{name}.json").read_text())
    cells = list(csv.DictReader((out / f"{name}.csv").open()))
    assert [cell[name] for cell in cells] == arms == [run["arm"] for run in content["runs"]]
    for cell, run in zip(cells, content["runs"], strict=True):
        assert float(cell["image_auroc"]) == run["figures"][run["selected"]]["image_auroc"]
        assert cell["class"] == run["class"] and len(run["losses"]) == 1
    assert len({run["losses"][0] for run in content["runs"]}) == len(arms), "each arm trains in another way"
    if name != "shots":
        assert [run["ablated"] == {} for run in content["runs"]] == [arm == arms[-1] for arm in arms]
        assert (out / STATE).exists(), "the whole method is the run without --ablate"
    states = list((out / name).glob(f"*/{STATE}"))
    assert len(states) == len(arms) - (name != "shots")


def test_finished_runs_are_not_trained_again(common, tmp_path, benchmark, capsys):
    """Of an ablation that was killed, only what is missing is trained; the whole method is that of the plain run."""
    out = tmp_path / "out"
    arguments = (*common("mediclip", "embedded"), "--shots", SHOTS, "--out", out)
    benchmark(*arguments)
    plain = (out / STATE).stat().st_mtime_ns
    benchmark(*arguments, "--ablate", "losses")
    assert (out / STATE).stat().st_mtime_ns == plain
    whole = (out / "losses.csv").read_text()
    states = [out / STATE, *(out / "losses" / arm / STATE for arm in ("without-focal", "without-dice"))]
    times = [state.stat().st_mtime_ns for state in states]
    states[-1].unlink()  # as if the command had been killed before the last of its runs
    (out / "losses.csv").unlink()
    capsys.readouterr()
    benchmark(*arguments, "--ablate", "losses")
    assert [state.stat().st_mtime_ns == time for state, time in zip(states, times, strict=True)] == [True, True, False]
    assert (out / "losses.csv").read_text() == whole
    assert capsys.readouterr().err.count("going on with the run in") == 2


@pytest.mark.long
def test_killed_ablation_is_resumed(bmad_tree, tmp_path):
    """kill -9 in the second of two runs, then the same command again, compared with an uninterrupted one."""

    def command(out: str) -> list[str]:
        return [str(COMMAND), "benchmark", "--protocol", "mvfa", "--data", str(bmad_tree), "--class", "Brain",
                "--shots", str(SHOTS), "--encoder", "embedded", "--image-size", str(SIZE), "--epochs", str(EPOCHS),
                "--ablate", "adapters", "--out", str(tmp_path / out)]  # fmt: skip

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first, second = tmp_path / "killed" / "adapters" / "projection" / STATE, tmp_path / "killed" / STATE
    process = subprocess.Popen(command("killed"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not second.exists():
        assert process.poll() is None and time.monotonic() < deadline, "the second run did not begin"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = json.loads(torch.load(second, weights_only=True)["history"])["epoch"]
    assert 1 <= done < EPOCHS and not (tmp_path / "killed" / "adapters.csv").exists()

    finished = first.stat().st_mtime_ns
    for out in ("killed", "whole"):
        subprocess.run(command(out), env=environment, check=True, capture_output=True, timeout=600)
    assert first.stat().st_mtime_ns == finished
    for name in ("adapters.csv", "adapters.json", "scores.csv"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_published_figures_are_those_of_the_whole_method(common, tmp_path, tiny_clip, benchmark, capsys):
    """Also zero-shot, and on two classes: a column for each."""
    out = tmp_path / "out"
    benchmark(*common("mvfa", tiny_clip), "--class", "Chest", "--zero-shot", "--ablate", "adapters", "--out", out)
    runs = json.loads((out / "adapters.json").read_text())["runs"]
    assert [(run["class"], run["arm"]) for run in runs] == [
        (name, arm) for name in ("Brain", "Chest") for arm in ("projection", "adapters")
    ]
    assert [run["published"]["source"] == "not at hand" for run in runs] == [True, False] * 2
    assert (out / "adapters" / "projection" / "Chest" / STATE).exists() and (out / "Chest" / STATE).exists()
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["adapters", "Brain", "Chest"] for line in lines)
    assert not list((out / "adapters").rglob("*.pth")) and (out / "Chest" / "Chest.pth").exists()


def test_refusals(common, bmad_tree, tmp_path, tiny_clip, benchmark):
    def refusal(method: str, *arguments, encoder: str = "embedded") -> str:
        with pytest.raises(MedCLIPADError) as error:
            benchmark(*common(method, encoder), *arguments, "--out", tmp_path / "out")
        text = str(error.value)
        assert text.endswith(".") and "\n" not in text and not (tmp_path / "out").exists()
        return text

    assert refusal("mvfa", "--ablate", "prompts") == (
        'mvfa has no ablation "prompts" on Brain: choose one of levels, adapters, losses, shots.'
    )
    assert "choose one of synthesis, losses, shots" in refusal("mediclip", "--ablate", "prompts"), "no text tower"
    assert 'no ablation "losses" on Chest' in refusal("mvfa", "--class", "Chest", "--ablate", "losses"), "one loss"
    assert "Brain zero-shot: choose one of levels, adapters, losses." in refusal(
        "mvfa", "--zero-shot", "--ablate", "shots", encoder=tiny_clip
    )
    assert "sets the number of shots: leave --shots out" in refusal("mvfa", "--shots", 2, "--ablate", "shots")
    assert "nothing to compare on Brain: not 1, 2, 4, 8, 16, 32 shots, because there is no seed file" in refusal(
        "mvfa", "--ablate", "shots", "--fewshot-seed", tmp_path
    )
    assert "no class" in refusal("mvfa", "--class", "Heart", "--ablate", "shots")
    assert "one of them at a time" in refusal("mvfa", "--ablate", "levels", "--across")
    assert "--checkpoint" in refusal("mvfa", "--ablate", "levels", "--checkpoint", tmp_path / "a.pth")
    assert "two or more with --class" in refusal("mediclip", "--across")
    assert "add --zero-shot" in refusal("mvfa", "--class", "Chest", "--across")


def test_a_wrong_name_ends_the_command(common, capsys, monkeypatch):
    arguments = map(str, common("mvfa", "embedded"))
    monkeypatch.setattr(sys, "argv", ["medclipad", "benchmark", *arguments, "--ablate", "colours"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1 and 'no ablation "colours"' in capsys.readouterr().err


def test_a_benchmark_without_ablations(mediclip_tree, tmp_path):
    class Plain(MediCLIPBenchmark):
        def ablations(self, data, settings, seeds):
            return super(MediCLIPBenchmark, self).ablations(data, settings, seeds)

    settings = Settings("", 1, "embedded", SIZE, 1, 1e-3)
    runs = Runs(Plain(), mediclip_tree, None, tmp_path / "out", ["busi"], settings)
    with pytest.raises(MedCLIPADError, match=r'no ablation "levels" on busi: leave --ablate out\.'):
        runs.ablations("levels")
