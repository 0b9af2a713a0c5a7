"""Both benchmarks in the paper's variant: it is what trains and tests, and every record says so."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
import typer
from protocol_trees import CLASSES, MASKED, SHOTS

from medclipad.cli import benchmark as cli_benchmark
from medclipad.errors import TrainingError
from medclipad.evaluation.protocols.run import train_and_test
from medclipad.methods.common.benchmark_settings import Settings
from medclipad.methods.common.frozen_states import FrozenStates
from medclipad.methods.mediclip import benchmark as mediclip
from medclipad.methods.mediclip.network import MediCLIPNetwork
from medclipad.methods.mediclip.options import MediCLIPOptions
from medclipad.methods.mediclip.synthesis import AnomalySynthesis
from medclipad.methods.mediclip.training import new_optimiser, step
from medclipad.methods.mvfa import benchmark as mvfa
from medclipad.methods.mvfa.evidence import combine
from medclipad.methods.mvfa.network import MVFANetwork
from medclipad.methods.mvfa.options import MVFAOptions
from medclipad.methods.mvfa.training import Trainer, initialise

SIZE, SEED = 64, 3


def settings(class_name: str, encoder: str, **changed) -> Settings:
    given = {"shots": SHOTS, "image_size": SIZE, "epochs": 1, "learning_rate": 1e-3, "seed": SEED, "variant": "paper"}
    return Settings(class_name=class_name, encoder=encoder, **{**given, **changed})


@pytest.fixture
def benchmark():
    app = typer.Typer()
    app.command()(cli_benchmark.benchmark)
    return lambda *arguments: app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture(params=["embedded", "clip"])
def encoder(request, tiny_clip) -> str:
    return "embedded" if request.param == "embedded" else tiny_clip


def test_few_shot(bmad_tree, tmp_path, encoder):
    """With the paper's adapters and sixteen pictures a step, losses and scores are those of the method's own parts."""
    ours = mvfa.FewShot(bmad_tree, bmad_tree / "fewshot_seed", settings("Brain", encoder, select="last"))
    outcome = train_and_test(ours, tmp_path)
    assert ours.batch == 16 and ours.steps == -(-2 * 11 * SHOTS // 16)
    assert ours.checkpoint() is None, "the reference's format cannot hold the paper's projectors"

    model = MVFANetwork(ours.model.encoder, MVFAOptions(variant="paper", class_name="Brain", memory_tokens="all"))
    initialise(model, SEED)
    if model.encoder.text:
        model.use_class("Brain")
    trainer, frozen, losses = Trainer(model, 1e-3), FrozenStates(model, ours.data.images), []
    order = torch.randperm(len(ours.data.images), generator=torch.Generator().manual_seed(SEED))
    for chosen in order.split(16):
        losses.append(trainer.step(frozen[chosen], *(part[chosen] for part in ours.data[1:])).total.item())
    np.testing.assert_allclose(outcome.history.losses, [np.mean(losses)], rtol=1e-6)
    model.remember(ours.data.images[ours.data.labels == 0])
    evidence = model.evidence(ours.tests[range(len(ours.tests))])
    maps = combine(evidence.zero_map, evidence.few_map)
    np.testing.assert_allclose(outcome.scores.images, maps.amax(dim=(1, 2)), atol=1e-6)


def test_zero_shot(bmad_tree, tmp_path, tiny_clip):
    ours = mvfa.ZeroShot(bmad_tree, settings("Chest", tiny_clip, shots=0, max_images=1))
    before = ours.weights()
    train_and_test(ours, tmp_path)
    moved = {name.partition(".")[0] for name, value in ours.weights().items() if not torch.equal(value, before[name])}
    assert moved == {"adapters", "seg_projectors", "det_projectors"}
    assert any("1 picture a step instead of the paper's 16" in line for line in ours.deviations(True))
    assert ours.steps == 2 * (len(CLASSES) - 1) and "Chest" not in MASKED


def test_mediclip(mediclip_tree, tmp_path, encoder):
    """The paper's three equally likely tasks, and a softmax for each level."""
    ours = mediclip.MediCLIPProtocol(mediclip_tree, settings("busi", encoder, shots=4, select="last"))
    outcome = train_and_test(ours, tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = MediCLIPNetwork(
            ours.model.encoder, MediCLIPOptions(variant="paper", schedule="published", memory_share=0)
        )
    rng, synthesis, optimiser = (
        np.random.default_rng(SEED),
        AnomalySynthesis(ours.normal, "paper"),
        new_optimiser(model),
    )
    assert list(synthesis.tasks) == ["cutpaste", "gauss", "source"] == list(ours.synthesis.tasks)
    pairs = [synthesis(ours.normal[index], rng) for index in rng.permutation(4)]
    losses = step(model, optimiser, *(torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True)))
    np.testing.assert_allclose(outcome.history.losses, [sum(losses)], rtol=1e-6)
    model.freeze_text_features()
    maps = model.anomaly(ours.tests[range(len(ours.tests))])[0]
    np.testing.assert_allclose(outcome.scores.images, maps.amax(dim=(1, 2)), atol=1e-6)


def test_command(mediclip_tree, bmad_tree, tmp_path, tiny_clip, benchmark, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    common = ("--image-size", SIZE, "--encoder", tiny_clip, "--epochs", 1, "--variant", "paper")
    busi = ("--protocol", "mediclip", "--data", mediclip_tree, "--class", "busi", "--shots", 4)
    brain = ("--protocol", "mvfa", "--data", bmad_tree, "--class", "Brain", "--shots", SHOTS, "--max-images", 1)
    for arguments in (busi, brain):
        out = tmp_path / arguments[1]
        benchmark(*arguments, *common, "--out", out)
        assert "Differs from the reference: variant paper instead of reference." in capsys.readouterr().out
        record = json.loads((out / "results.json").read_text())
        rows = list(csv.DictReader((out / "results.csv").open()))
        assert record["variant"] == "paper" == rows[0]["variant"] and record["losses"]
        assert record["batch"] == {"mediclip": 8, "mvfa": 16}[arguments[1]]
    assert not (tmp_path / "mvfa" / "Brain.pth").exists()

    # MediCLIP's two variants have the same weights: the variant decides which map they give.
    figures = {}
    for variant in ("paper", "reference"):
        weights = ("--checkpoint", tmp_path / "mediclip" / "busi.pth", "--variant", variant)
        benchmark(*busi, *common[:4], *weights, "--out", tmp_path / variant)
        scores = csv.DictReader((tmp_path / variant / "scores.csv").open())
        figures[variant] = [float(line["score"]) for line in scores]
    trained = [float(line["score"]) for line in csv.DictReader((tmp_path / "mediclip" / "scores.csv").open())]
    np.testing.assert_allclose(figures["paper"], trained, atol=1e-6)
    assert np.abs(np.subtract(figures["reference"], trained)).max() > 1e-3


@pytest.mark.parametrize(
    ("arguments", "maker", "expected"),
    [
        (("mvfa", "Brain"), (mvfa, "FewShot"), (4, "ViT-L-14-336/openai", 240, 50, 1e-3, 111)),
        (("mvfa", "Brain", "--zero-shot"), (mvfa, "ZeroShot"), (0, "ViT-L-14-336/openai", 240, 50, 1e-4, 111)),
        (("mediclip", "busi"), (mediclip, "MediCLIPProtocol"), (16, "ViT-L-14-quickgelu/openai", 224, 200, 1e-3, 111)),
    ],
)
def test_defaults_are_those_of_the_reference_codes(tmp_path, benchmark, monkeypatch, arguments, maker, expected):
    class Made(Exception):
        """Raised instead of loading anything."""

    def make(*given) -> None:
        raise Made(next(argument for argument in given if isinstance(argument, Settings)))

    monkeypatch.setattr(*maker, make)
    protocol, name, *rest = arguments
    with pytest.raises(Made) as made:
        benchmark("--protocol", protocol, "--data", tmp_path, "--class", name, *rest, "--out", tmp_path / "out")
    run = made.value.args[0]
    assert (run.shots, run.encoder, run.image_size, run.epochs, run.learning_rate, run.seed) == expected
    assert (run.variant, run.select, run.max_images, run.iterate) == ("reference", "best-test", None, 0)
    reference = {"FewShot": mvfa.REFERENCE, "ZeroShot": mvfa.ZERO_REFERENCE}.get(maker[1], mediclip.REFERENCE)
    assert run.deviations(reference, trained=True) == []


def test_folder_is_named_after_the_variant(mediclip_tree, tmp_path, benchmark, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ("--protocol", "mediclip", "--data", mediclip_tree, "--class", "busi", "--shots", 1, "--epochs", 1,
                 "--encoder", "embedded", "--image-size", SIZE, "--max-images", 1)  # fmt: skip
    benchmark(*arguments, "--variant", "paper")
    assert [path.name for path in tmp_path.iterdir()] == ["benchmark-mediclip-busi-1-shot-paper"]


def test_variants_are_not_mixed_on_resuming(mediclip_tree, tmp_path):
    def run(variant: str) -> None:
        given = settings("busi", "embedded", shots=1, max_images=1, variant=variant)
        train_and_test(mediclip.MediCLIPProtocol(mediclip_tree, given), tmp_path)

    run("reference")
    with pytest.raises(TrainingError, match=r"other settings \(variant reference, now paper\)"):
        run("paper")
