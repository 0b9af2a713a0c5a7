"""Each sentence that refuses a file is exercised by a test, and what it tells to do exists where it appears."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

import medclipad.volume
from medclipad.cli.main import app
from medclipad.detection.detector import AnomalyDetector
from medclipad.server.params import InferParams, TrainParams
from medclipad.volume import read_untrusted, read_volume

TESTS = Path(__file__).parents[1]
ERRORS = {"VolumeError", "VolumeSizeError", "ValueError", "EOFError"}
WINDOW = 16  # characters of a sentence that a test must have


def sentences() -> Iterator[tuple[str, list[str]]]:
    """Yield where each error of the package is made, and the constant parts of its message."""
    for file in sorted(Path(medclipad.volume.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args:
                parts = [
                    part.value
                    for part in ast.walk(node.args[0])
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                ]
                if any(len(part) >= WINDOW for part in parts):
                    yield f"{file.name}:{node.lineno}", parts


def in_tests() -> str:
    """Return all strings of the tests, without the backslashes of regular expressions."""
    texts = []
    for file in sorted((TESTS / "volume").glob("*.py")) + sorted((TESTS / "detection").glob("*.py")):
        if file.name != Path(__file__).name:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value.replace("\\", ""))
    return "\n".join(texts)


SENTENCES = dict(sentences())
TEXTS = in_tests()


@pytest.mark.parametrize("where", SENTENCES)
def test_a_test_exercises_the_sentence(where):
    parts = [part for part in SENTENCES[where] if len(part) >= WINDOW]
    windows = (part[start : start + WINDOW] for part in parts for start in range(len(part) - WINDOW + 1))
    assert any(window in TEXTS for window in windows), f"no test has a part of: {' … '.join(parts)}"


def test_the_walk_finds_the_sentences():
    assert len(SENTENCES) > 100


OPTIONS = {"component": "--component", "series": "--series", "tilt": "--untilt", "force_modality": "--force-modality"}


def test_what_sentences_tell_to_pass_exists_where_they_appear():
    """In Python, in every command that reads images, and in requests of inference and training."""
    said = " ".join(" ".join(parts) for parts in SENTENCES.values())
    named = {*re.findall(r"\b(\w+)=", said), *re.findall(r"--[a-z-]+", said)}
    named -= {"0"}
    assert named <= {*OPTIONS, *OPTIONS.values()}, "a sentence names an option that this test does not know"
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for command in ("fit", "evaluate", "detect"):
        options = {option for parameter in commands[command].params for option in parameter.opts}
        wanted = {"--component", "--series", "--untilt"} | ({"--force-modality"} if command != "fit" else set())
        assert wanted <= options, command
    for read in (read_volume, read_untrusted):
        assert {"component", "series", "tilt"} <= set(inspect.signature(read).parameters)
    assert "force_modality" in inspect.signature(AnomalyDetector.detect).parameters
    for params in (InferParams, TrainParams):
        assert {"component", "series", "untilt"} <= set(params.model_fields)
    assert "force_modality" in InferParams.model_fields


def test_no_sentence_tells_to_pass_a_list():
    """The command line and the server take no lists of files: a folder works everywhere."""
    for where, parts in SENTENCES.items():
        assert "pass a list" not in " ".join(parts), where
