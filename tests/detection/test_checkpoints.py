"""Checkpoints of the reference projects: imported, used, exported again."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_cases import ARCHITECTURE, CONFIG, FILES, SIZE, STATES, mvfa_state, refused

from medclipad.cli import main as cli
from medclipad.compat import ensure_torchvision
from medclipad.detection.calibration import Calibration
from medclipad.detection.detector import load_detector
from medclipad.detection.fit import fit
from medclipad.detection.reference_checkpoints import (
    activation_note,
    export_checkpoint,
    import_checkpoint,
    read_checkpoint,
    reference_formats,
)
from medclipad.errors import DetectorError, MedCLIPADError, TrainingError
from medclipad.volume import write_volume


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> dict[str, str]:
    """Encoder names of one small CLIP with GELU ("mvfa") and with QuickGELU ("mediclip")."""
    ensure_torchvision()
    import open_clip

    folder = tmp_path_factory.mktemp("encoder")
    (folder / f"{ARCHITECTURE}.json").write_text(json.dumps(CONFIG))
    (folder / f"{ARCHITECTURE}-quickgelu.json").write_text(json.dumps({**CONFIG, "quick_gelu": True}))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    torch.save(open_clip.CLIP(**CONFIG).state_dict(), folder / "clip.pt")
    return {
        "mvfa": f"{ARCHITECTURE}/{folder / 'clip.pt'}",
        "mediclip": f"{ARCHITECTURE}-quickgelu/{folder / 'clip.pt'}",
    }


@pytest.fixture(params=["mvfa", "mediclip"])
def method(request) -> str:
    return request.param


@pytest.fixture
def file(method, tmp_path) -> Path:
    torch.save(STATES[method](), tmp_path / FILES[method])
    return tmp_path / FILES[method]


# Import and export


def test_round_trip_is_exact(method, file, encoders, tmp_path):
    detector = import_checkpoint(file, encoder=encoders[method])
    detector.save(tmp_path / "detector")
    left_out = export_checkpoint(tmp_path / "detector", tmp_path / "again.pth")
    original, again = (torch.load(path, weights_only=True) for path in (file, tmp_path / "again.pth"))
    assert list(again) == list(original)
    for part in original:
        assert list(again[part]) == list(original[part]) and isinstance(again[part], OrderedDict)
        for key, value in original[part].items():
            assert again[part][key].dtype == value.dtype and torch.equal(again[part][key], value), key
            assert again[part][key].untyped_storage().nbytes() == value.nbytes, "nothing else goes along"
    assert "calibration" in left_out[0] and len(left_out) == 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_imported_weights_are_used(method, file, encoders, head):
    """Other weights, another map; and the saved detector gives the same one."""
    detector = import_checkpoint(file, encoder=encoders[method])
    result = detector.detect(head(5, True))
    torch.save(
        {part: {k: v * 1.5 for k, v in state.items()} for part, state in STATES[method]().items()},
        file.with_name("Liver.pth"),
    )
    other = import_checkpoint(file.with_name("Liver.pth"), encoder=encoders[method]).detect(head(5, True))
    inside = result.foreground
    assert result.anomaly_map.array[inside].std() > 0
    assert not np.allclose(result.anomaly_map.array[inside], other.anomaly_map.array[inside], atol=1e-4)


def test_without_normal_slices_it_says_so(method, file, encoders, head, tmp_path):
    detector = import_checkpoint(file, encoder=encoders[method])
    info = detector.info
    assert (info.method, info.normal_slices, info.name) == (method, 0, file.stem)
    assert info.calibration == Calibration() and "nothing is promised" in info.calibration.promise()
    assert "Not calibrated" in info.description and ("zero-shot" in info.description) == (method == "mvfa")
    assert "computes with" not in info.description, "the encoder has the reference's activation"
    result = detector.detect(head(5, True))
    detector.save(tmp_path / "detector")
    again = load_detector(tmp_path / "detector").detect(head(5, True))
    assert np.array_equal(again.anomaly_map.array, result.anomaly_map.array)
    assert np.array_equal(again.slice_scores, result.slice_scores, equal_nan=True)


def test_zero_shot_map_is_the_mean_probability_of_the_levels(encoders, tmp_path, head):
    torch.save(mvfa_state(), tmp_path / "Brain.pth")
    detector = import_checkpoint(tmp_path / "Brain.pth", encoder=encoders["mvfa"], smoothing=0)
    images = torch.rand(2, SIZE, SIZE)
    evidence = detector.model.evidence(torch.nn.functional.interpolate(images[None], detector.info.image_size)[0])
    maps, scores = detector.model.anomaly(torch.nn.functional.interpolate(images[None], detector.info.image_size)[0])
    torch.testing.assert_close(maps, evidence.zero_map / 4)
    torch.testing.assert_close(scores, evidence.zero_score / 4)


def test_normal_slices_calibrate(method, file, encoders, head):
    detector = import_checkpoint(file, encoder=encoders[method], normal=[head(1)], shots=4, image_size=SIZE)
    info = detector.info
    assert info.normal_slices == 4 and info.calibration.basis == "other slices" and info.calibration.n == 0
    assert "Not calibrated" not in info.description
    result = detector.detect(head(1))
    normal = np.setdiff1d(np.flatnonzero(~np.isnan(result.slice_scores)), info.training_slices[0]["normal"])
    inside = result.slicing.slices(result.foreground)[normal]
    peaks = result.slicing.slices(result.raw_map.array)[normal].max(axis=(1, 2))
    share = (result.slicing.slices(result.anomaly_map.array)[normal][inside] > 0.2).mean()
    assert share == pytest.approx(0.1, rel=0.25), "the map is a rarity among these slices"
    if method == "mvfa":
        model = detector.model
        assert model.memory.sizes == [4 * 11 * (1 + (SIZE // 14) ** 2)] * 4, "of all augmentations every token"
        low, high = model.ranges.T
        assert model.ranges.isfinite().all() and (high > low)[:2].all(), "of both maps"
        assert 0.2 < peaks.max() <= 0.5, "normal slices fill the lower half of the scale"


def test_abnormal_slices_set_mvfas_scale(encoders, head, lesion, tmp_path):
    torch.save(mvfa_state(), tmp_path / "Brain.pth")
    given = {"normal": [head(1)], "shots": 4, "image_size": SIZE}
    alone = import_checkpoint(tmp_path / "Brain.pth", encoder=encoders["mvfa"], **given)
    detector = import_checkpoint(
        tmp_path / "Brain.pth", encoder=encoders["mvfa"], abnormal=[(head(5, True), lesion)], **given
    )
    assert detector.info.abnormal_slices
    assert not torch.allclose(detector.model.ranges[:, 1], alone.model.ranges[:, 1])


def test_too_few_normal_slices_to_scale_mvfa_by(encoders, head, tmp_path):
    torch.save(mvfa_state(), tmp_path / "Brain.pth")
    with pytest.raises(TrainingError, match="none is left to scale"):
        import_checkpoint(
            tmp_path / "Brain.pth", encoder=encoders["mvfa"], normal=[head(1)], shots="all", image_size=SIZE
        )


@pytest.mark.parametrize(("name", "given", "words", "head_in_use"), [
    ("Brain", None, "Brain", "seg"),
    ("Retina_RESC", None, "retinal OCT", "seg"),
    ("Chest", None, "Chest X-ray film", "det"),
    ("weights", "Histopathology", "histopathological image", "det"),
    ("weights", "knee MRI", "knee MRI", "seg"),
    ("Brain", "Liver", "Liver", "seg"),
])  # fmt: skip
def test_class_names(encoders, tmp_path, name, given, words, head_in_use):
    torch.save(mvfa_state(), tmp_path / f"{name}.pth")
    detector = import_checkpoint(tmp_path / f"{name}.pth", encoder=encoders["mvfa"], class_name=given)
    assert detector.info.config.options["class_name"] == words and detector.model.head == head_in_use
    assert detector.model.text_features.any()


def test_class_name_must_be_known(encoders, tmp_path):
    torch.save(mvfa_state(), tmp_path / "weights.pth")
    refused(tmp_path / "weights.pth", "--class-name", encoders["mvfa"])


def test_the_other_activation_is_told(method, file, encoders):
    other = encoders["mediclip" if method == "mvfa" else "mvfa"]
    assert "computes with" in import_checkpoint(file, encoder=other).info.description
    assert "computes with" not in import_checkpoint(file, encoder=encoders[method]).info.description


def test_who_computes_otherwise():
    """By the name alone: nothing is loaded, or looked for on the network."""
    swapped = {"mvfa": ("ViT-L-14-336-quickgelu", "ViT-L-14-336"), "mediclip": ("ViT-L-14", "ViT-L-14-quickgelu")}
    for method, (wrong, right) in swapped.items():
        for weights in ("openai", "some/file.pt"):
            assert f": name {right} to compute as it did." in activation_note(method, f"{wrong}/{weights}")
            assert activation_note(method, f"{right}/{weights}") is None
        assert activation_note(method, reference_formats()[method].encoder) is None
    # Not OpenAI's: whoever trained them said which activation goes with them.
    assert activation_note("mediclip", "ViT-L-14/laion2b_s32b_b82k") is None
    for encoder in ("embedded", "magic/openai", "hf-hub:owner/model/openai", "ViT-L-14"):
        assert activation_note("mediclip", encoder) is None
    with pytest.raises(DetectorError, match="no method"):
        activation_note("another", "ViT-L-14/openai")


def test_import_tells_the_other_activation(method, file, encoders, tmp_path, command):
    """On standard error, in a sentence, and the work is done all the same."""
    for one, encoder in encoders.items():
        code, _, err = command("models", "import", file, "--encoder", encoder, "--out", tmp_path / one)
        lines = [line for line in err.splitlines() if "computes with" in line]
        assert code == 0 and (tmp_path / one / "detector.json").is_file()
        if one == method:
            assert not lines
        else:
            assert len(lines) == 1 and lines[0].startswith(f"medclipad: {encoder.partition('/')[0]} computes with ")
            assert lines[0].endswith(f"name {encoders[method].partition('/')[0]} to compute as it did.")


def test_fit_tells_the_other_activation(encoders, head, tmp_path, command):
    write_volume(head(1), tmp_path / "healthy.nii.gz")
    case = ("--normal", tmp_path / "healthy.nii.gz", "--shots", 1, "--epochs", 1, "--image-size", SIZE)
    code, _, err = command("fit", *case, "--encoder", encoders["mvfa"], "--out", tmp_path / "detector")
    assert code == 0 and (tmp_path / "detector" / "detector.json").is_file()
    assert f"medclipad: {ARCHITECTURE} computes with GELU, but the code of mediclip ran OpenAI's weights with" in err


def test_export_names_what_is_left_out(encoders, head, tmp_path):
    torch.save(mvfa_state(), tmp_path / "Brain.pth")
    given = {"normal": [head(1)], "shots": 4, "image_size": SIZE}
    import_checkpoint(tmp_path / "Brain.pth", encoder=encoders["mvfa"], **given).save(tmp_path / "few")
    assert any("memory" in one for one in export_checkpoint(tmp_path / "few", tmp_path / "few.pth"))
    options = {"shots": 4, "image_size": SIZE, "variant": "paper", "max_steps": 1}
    paper = fit(method="mediclip", encoder=encoders["mediclip"], normal=[head(1)], **options)
    paper.save(tmp_path / "paper")
    assert any("variant" in one for one in export_checkpoint(tmp_path / "paper", tmp_path / "paper.pth"))
    assert read_checkpoint(tmp_path / "paper.pth").method == "mediclip"


@pytest.mark.parametrize("kind", ["mediclip", "mvfa", "mvfa paper"])
def test_what_the_format_cannot_hold_is_not_exported(encoders, head, lesion, tmp_path, kind):
    name, _, variant = kind.partition(" ")
    options = {"max_steps": 1, "memory_size": 50} if name == "mediclip" else {"max_samples": 2, "memory_tokens": 20}
    abnormal = [] if name == "mediclip" else [(head(5, True), lesion)]
    encoder, size = ("embedded", 64) if not variant else (encoders["mvfa"], SIZE)
    if variant:
        options["variant"] = variant
    detector = fit(
        method=name, encoder=encoder, normal=[head(1)], abnormal=abnormal, shots=2, image_size=size, **options
    )
    detector.save(tmp_path / "detector")
    with pytest.raises(DetectorError, match="learned vectors" if not variant else "projectors") as caught:
        export_checkpoint(tmp_path / "detector", tmp_path / "out.pth")
    assert "\n" not in str(caught.value) and not (tmp_path / "out.pth").exists()


def test_export_writes_whole_files_only(method, file, encoders, tmp_path, monkeypatch):
    import_checkpoint(file, encoder=encoders[method]).save(tmp_path / "detector")
    before = file.read_bytes()
    with pytest.raises(DetectorError, match="exists already"):
        export_checkpoint(tmp_path / "detector", file)
    assert file.read_bytes() == before

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DetectorError, match="No space left"):
        export_checkpoint(tmp_path / "detector", tmp_path / "new" / "out.pth")
    assert not list((tmp_path / "new").iterdir())
    with pytest.raises(DetectorError, match="cannot be written"):
        export_checkpoint(tmp_path / "detector", file / "out.pth")


# Wrong weights and settings


def test_keys_shapes_and_types_are_those_of_the_encoder(method, file, encoders):
    state = STATES[method]()
    for part in state:
        for key, value in state[part].items():
            for words, changed in (
                (f"lacks {key}", {k: v for k, v in state[part].items() if k != key}),
                ("unknown zzz", {**state[part], "zzz": value}),
                (f"{key} in {part}.*needs", {**state[part], key: value[:-1]}),
                (f"{key} in {part}.*float16.*needs float32", {**state[part], key: value.half()}),
                (f"{key} in {part}.*needs", {**state[part], key: value[None]}),
            ):
                torch.save({**state, part: changed}, file)
                refused(file, words.replace("[", r"\["), encoders[method])


def test_weights_of_another_encoder(encoders, tmp_path):
    torch.save(mvfa_state(64), tmp_path / "Brain.pth")
    refused(tmp_path / "Brain.pth", r"\[12, 64\].*needs float32 \[12, 32\].*name the encoder", encoders["mvfa"])


@pytest.mark.parametrize("given", [
    {"plane": "diagonal"}, {"smoothing": -1.0}, {"smoothing": float("nan")}, {"intensity": "ct:knee"},
    {"image_size": 3}, {"encoder": "magic"}, {"encoder": "ViT-B-32"}, {"memory": 3},
])  # fmt: skip
def test_impossible_settings(method, file, encoders, given):
    with pytest.raises(MedCLIPADError) as caught:
        import_checkpoint(file, **{"encoder": encoders[method], **given})
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_encoder_without_text_tower(method, file):
    refused(file, "needs the CLIP encoder", "embedded", image_size=64)


# The command line


@pytest.fixture
def command(monkeypatch, capsys):
    """`command(*arguments)`: exit code, standard output and error of the command."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["medclipad", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return run


def test_commands(method, file, encoders, head, tmp_path, command):
    write_volume(head(1), tmp_path / "healthy.nii.gz")
    folder = tmp_path / "models" / "one"
    arguments = ("--encoder", encoders[method], "--out", folder, "--image-size", SIZE)
    code, out, err = command("models", "import", file, *arguments)
    assert code == 0 and "Not calibrated" in out, err
    code, out, _ = command("models", "import", file, *arguments[:3], tmp_path / "two", "--image-size", SIZE,
                           "--normal", tmp_path / "healthy.nii.gz", "--shots", 4)  # fmt: skip
    assert code == 0 and "Not calibrated" not in out
    code, _, err = command("models", "import", file, *arguments)
    assert code == 1 and "exists already" in err
    code, out, _ = command("detect", folder, tmp_path / "healthy.nii.gz", "--out", tmp_path / "results")
    assert code == 0 and (tmp_path / "results" / "healthy_anomaly.nii.gz").is_file()
    code, out, _ = command("models", "export", folder, "--out", tmp_path / "again.pth")
    assert code == 0 and "Left out" in out and read_checkpoint(tmp_path / "again.pth").method == method


def test_several_files(encoders, tmp_path, command):
    for name in ("Brain", "Chest"):
        torch.save(mvfa_state(), tmp_path / f"{name}.pth")
    files = (tmp_path / "Brain.pth", tmp_path / "Chest.pth")
    code, _, err = command("models", "import", *files, "--encoder", encoders["mvfa"], "--out", tmp_path / "models")
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["Brain", "Chest"]
    code, _, err = command("models", "import", files[0], files[0], "--out", tmp_path / "twice")
    assert code == 1 and "same name" in err and not (tmp_path / "twice").exists()


def test_a_wrong_file_leaves_nothing(tmp_path, encoders, command):
    state = mvfa_state()
    state["seg_adapters"]["0.fc1.0.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "Brain.pth")
    code, out, err = command(
        "models", "import", tmp_path / "Brain.pth", "--encoder", encoders["mvfa"], "--out", tmp_path / "models"
    )
    assert code == 1 and not out and "\n" not in err.strip() and "not finite" in err
    assert [path.name for path in tmp_path.iterdir()] == ["Brain.pth"]
