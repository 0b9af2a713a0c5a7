"""Invalid folders and options of the benchmarks: each gives one sentence that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from protocol_trees import SHOTS

from medclipad.cli import benchmark as cli_benchmark
from medclipad.errors import MedCLIPADError
from medclipad.methods.common.labelled_images import require_lesions


@pytest.fixture
def bmad(bmad_tree, tmp_path) -> Path:
    """Return a copy of two classes, to damage."""
    for name in ("Brain_AD", "Chest_AD", "fewshot_seed"):
        shutil.copytree(bmad_tree / name, tmp_path / "data" / name)
    return tmp_path / "data"


@pytest.fixture
def busi(mediclip_tree, tmp_path) -> Path:
    return Path(shutil.copytree(mediclip_tree / "busi", tmp_path / "data" / "busi"))


@pytest.fixture
def refusal(tmp_path):
    """Return `refusal(data, protocol, *arguments)`, which returns the sentence with which the command ends."""
    app = typer.Typer()
    app.command()(cli_benchmark.benchmark)

    def run(data: Path, protocol: str, *arguments, class_name: str | None = None) -> str:
        given = [
            "--protocol",
            protocol,
            "--data",
            data,
            "--class",
            class_name or {"mvfa": "Brain"}.get(protocol, "busi"),
        ]
        if "--shots" not in arguments and "--zero-shot" not in arguments:
            given += ["--shots", SHOTS]
        if "--encoder" not in arguments:
            given += ["--encoder", "embedded", "--image-size", 64]
        given += ["--epochs", 1, "--out", tmp_path / "out", *arguments]
        with pytest.raises(MedCLIPADError) as error:
            app([str(argument) for argument in given], standalone_mode=False)
        text = str(error.value)
        assert text.endswith(".") and "\n" not in text and len(text) < 600, text
        assert not (tmp_path / "out").exists()
        return text

    return run


def first_file(folder: Path) -> Path:
    return sorted(folder.iterdir())[0]


def test_bmad_folders(bmad, refusal):
    assert 'no class "Heart": choose one of Brain' in refusal(bmad, "mvfa", class_name="Heart")
    assert "is not a folder" in refusal(bmad / "absent", "mvfa")
    assert "Liver_AD" in refusal(bmad, "mvfa", class_name="Liver")
    assert "Liver_AD/test/good/img is missing" in refusal(
        bmad, "mvfa", "--zero-shot", "--encoder", "ViT-L-14-336/openai"
    )
    for path in (bmad / "Brain_AD" / "test" / "Ungood" / "img").iterdir():
        path.unlink()
    assert "has no abnormal picture: an AUROC needs both" in refusal(bmad, "mvfa")
    shutil.rmtree(bmad / "Brain_AD" / "test" / "good")
    assert "good/img is missing: --data must be" in refusal(bmad, "mvfa")


def test_bmad_seed_files(bmad, refusal):
    file = bmad / "fewshot_seed" / "Brain" / f"{SHOTS}-shot.txt"
    assert f"there: {SHOTS}-shot.txt" in refusal(bmad, "mvfa", "--shots", 16)
    assert 'after "n-3:" instead of' in refusal(bmad, "mvfa", "--iterate", 3)
    text = file.read_text()
    file.write_text(text.replace("Brain_0.png", "Brain_9.png"))
    assert "names Brain_9.png, which is not in" in refusal(bmad, "mvfa")
    file.write_text(text.replace("Brain_0.png", ""))
    assert f"names {SHOTS - 1} pictures after" in refusal(bmad, "mvfa")
    file.write_text(f"{text}\n{text.splitlines()[0]}")
    assert "two lines that begin alike" in refusal(bmad, "mvfa")


def test_bmad_pictures(bmad, refusal):
    folder = bmad / "Brain_AD" / "test" / "Ungood"
    mask = first_file(folder / "anomaly_mask")
    content = mask.read_bytes()
    Image.fromarray(np.zeros((9, 7), np.uint8)).save(mask)
    assert "has 7 × 9 pixels and its picture 80 × 80" in refusal(bmad, "mvfa")
    mask.unlink()
    assert "has no mask" in refusal(bmad, "mvfa")
    mask.write_bytes(content)
    image = first_file(folder / "img")
    image.write_bytes(image.read_bytes()[:900])
    assert f"{image.name} is not a readable picture (" in refusal(bmad, "mvfa")
    image.write_text("no picture")
    assert f"{image.name} is not a readable picture (cannot identify" in refusal(bmad, "mvfa")
    for dtype in (np.uint16, np.int32, np.float32):
        Image.fromarray(np.zeros((80, 80), dtype)).save(image, "TIFF")
        assert f"{image.name} has more than 8 bits a pixel" in refusal(bmad, "mvfa")
    image.unlink()
    image.mkdir()
    assert f"{image.name} is no file" in refusal(bmad, "mvfa")
    image.rmdir()
    image.symlink_to(image.name)
    assert f"{image.name} is no file" in refusal(bmad, "mvfa")


@pytest.mark.parametrize("value", [0, 1])
def test_masks_that_mark_nothing(bmad, busi, refusal, value):
    """A mask of 1 instead of 255 marks nothing in MVFA's reference, and a lesion in MediCLIP's."""
    for folder in (bmad / "Brain_AD" / "test" / "Ungood" / "anomaly_mask", busi / "images" / "test" / "ground_true"):
        for mask in folder.iterdir():
            Image.fromarray(np.full((80, 80), value, np.uint8)).save(mask)
    assert "Brain_AD/test leave no abnormal pixel: they must be 255 on lesions" in refusal(bmad, "mvfa")
    if not value:
        assert "busi leave no abnormal pixel" in refusal(busi.parent, "mediclip")


def test_masks_that_mark_everything():
    with pytest.raises(MedCLIPADError, match="leave no normal pixel"):
        require_lesions(np.ones((2, 3, 3), bool), Path("data"))


def test_mediclip_lists(busi, refusal):
    data, samples = busi.parent, busi / "samples"
    assert 'no data set "chexpert"' in refusal(data, "mediclip", class_name="chexpert")
    assert "(there: busi)" in refusal(data, "mediclip", class_name="chexpert")
    assert "has 6 normal training pictures, not 99" in refusal(data, "mediclip", "--shots", 99)
    test = (samples / "test.json").read_text()
    lines = [json.loads(line) for line in test.splitlines()]

    def spoil(text: str, part: str = "test") -> str:
        (samples / f"{part}.json").write_text(text)
        return refusal(data, "mediclip")

    assert "test.json is empty" in spoil("\n")
    assert "not a list of JSON objects" in spoil(test + "{half")
    assert "lines that are not JSON objects" in spoil("[1]\n")
    assert "not a list of JSON objects" in spoil("[" * 100_000)
    for name in ("", "a" * 5000, "a\0b", "\ud800", "."):
        assert ("filename" if not name else "is missing") in spoil(json.dumps({**lines[0], "filename": name}))
    assert "Line 2 of" in spoil(test.splitlines()[0] + '\n{"filename": "x.png", "label": "bad"}\n')
    assert "has no abnormal picture" in spoil("".join(json.dumps(line) + "\n" for line in lines if not line["label"]))
    assert "Line 1 of" in (text := spoil(json.dumps({**lines[0], "filename": "absent.png"}))) and "is missing" in text
    spoilt = {**lines[-1], "mask": lines[0]["filename"]}
    Image.fromarray(np.zeros((9, 7), np.uint8)).save(busi / "images" / lines[0]["filename"])
    assert "has 7 × 9 pixels" in spoil(json.dumps(lines[1]) + "\n" + json.dumps(spoilt))
    assert 'for a "mask" a file name or null' in spoil(json.dumps({**lines[-1], "mask": 5}))
    assert "has no normal picture" in spoil(json.dumps({**lines[-1], "clsname": ["busi"]}))
    (samples / "test.json").write_text(test)
    assert "train.json is empty" in spoil("", "train")
    assert "names no normal picture" in spoil(json.dumps({**lines[0], "label": 1}), "train")
    (samples / "train.json").unlink()
    assert "train.json cannot be read (No such file" in refusal(data, "mediclip")


def test_options(bmad, busi, refusal, tmp_path):
    assert 'Zero-shot needs prompts, and encoder "embedded" has no text tower' in refusal(
        bmad, "mvfa", "--zero-shot", "--encoder", "embedded"
    )
    assert "mediclip has no zero-shot protocol" in refusal(busi.parent, "mediclip", "--zero-shot")
    assert "not both" in refusal(bmad, "mvfa", "--zero-shot", "--shots", 4)
    assert "Nothing can be written to" in refusal(
        bmad, "mvfa", "--out", first_file(bmad / "fewshot_seed" / "Brain") / "x"
    )
    assert "leave --variant paper out" in refusal(
        bmad, "mvfa", "--variant", "paper", "--checkpoint", tmp_path / "a.pth"
    )
    assert "one --class" in refusal(bmad, "mvfa", "--class", "Chest", "--checkpoint", tmp_path / "a.pth")


def test_checkpoints(bmad, refusal, tmp_path, tiny_clip):
    file, clip = tmp_path / "Brain.pth", ("--encoder", tiny_clip, "--image-size", 64)
    assert "cannot be read (No such file" in refusal(bmad, "mvfa", "--checkpoint", file, *clip)
    file.write_bytes(b"garbage")
    assert "is no file that torch.save wrote" in refusal(bmad, "mvfa", "--checkpoint", file, *clip)
    torch.save(torch.zeros(3), file)
    assert "is no checkpoint of madclip or mediclip or mvfa" in refusal(bmad, "mvfa", "--checkpoint", file, *clip)
    torch.save({"seg_adapters": {}, "det_adapters": {}}, file)
    assert "of the checkpoint lacks 0.fc1.0.weight" in refusal(bmad, "mvfa", "--checkpoint", file, *clip)
    assert "belong to CLIP" in refusal(bmad, "mvfa", "--checkpoint", file)
