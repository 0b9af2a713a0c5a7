"""Encoder families: found by name without torch, and new ones from one file or from another package."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medclipad.encoders import (
    EncoderFamily,
    ImageEncoder,
    default_encoder,
    encoder_examples,
    encoder_families,
    encoder_family,
    load_encoder,
    register_encoder,
    unregister_encoder,
)
from medclipad.errors import DetectorError


class AveragingEncoder(ImageEncoder):
    """The smallest encoder: each stage averages 2 x 2 tokens."""

    widths = (3,) * 4
    n_prefix, embed_dim = 0, 8
    mean, std = (0.0,) * 3, (1.0,) * 3
    is_convolutional = True

    def __init__(self, name: str, image_size: int) -> None:
        super().__init__()
        self.name, self.sha256, self.image_size = name, "0" * 64, image_size
        self.grids = tuple(image_size // 2 ** (level + 1) for level in range(4))
        self.scale = nn.Parameter(torch.ones(()))
        self.freeze()

    def stem(self, images: Tensor) -> Tensor:
        return images * self.scale

    def stage(self, state: Tensor, level: int) -> Tensor:
        return nn.functional.avg_pool2d(state, 2)

    def tokens(self, state: Tensor) -> Tensor:
        return state.flatten(2).transpose(1, 2)

    def with_tokens(self, state: Tensor, tokens: Tensor) -> Tensor:
        return tokens.transpose(1, 2).unflatten(2, state.shape[2:])


class AveragingFamily(EncoderFamily):
    """Encoders "averaging/SIZE"."""

    name = "averaging"
    summary = "averages of pixels"
    usage = 'averages of pixels, such as "averaging/16"'
    examples = ("averaging/16",)
    is_convolutional = True
    gains_from_bfloat16 = False

    def accepts(self, name: str) -> bool:
        return name.startswith("averaging/")

    def check_image_size(self, name: str, image_size: int) -> None:
        if image_size % 16:
            raise DetectorError(f"Averages need multiples of 16 pixels, not {image_size}.")

    def load(self, name, image_size, dtype, device, progress) -> ImageEncoder:
        size = image_size or int(name.partition("/")[2])
        self.check_image_size(name, size)
        return AveragingEncoder(name, size).to(device, dtype)


@pytest.fixture
def averaging() -> Iterator[EncoderFamily]:
    family = AveragingFamily()
    register_encoder(family)
    yield family
    unregister_encoder(family.name)


def test_family_registered_in_one_file_is_loaded(averaging):
    assert averaging in encoder_families() and encoder_family("averaging/32") is averaging
    encoder = load_encoder("averaging/32", None, "cpu", precision="auto")
    assert isinstance(encoder, AveragingEncoder) and encoder.image_size == 32 and encoder.dtype == torch.float32
    assert load_encoder("averaging/32", 32, "cpu") is encoder, "one copy a process"
    assert [tokens.shape[1] for tokens in encoder.taps(torch.rand(1, 3, 32, 32))] == [256, 64, 16, 4]
    assert encoder.is_convolutional and not encoder.has_text
    with pytest.raises(DetectorError, match="multiples of 16"):
        load_encoder("averaging/32", 20)
    with pytest.raises(DetectorError, match="no text tower"):
        encoder.project(torch.zeros(1, 3))


def test_unknown_name_says_which_names_there_are(averaging):
    with pytest.raises(DetectorError, match="not known") as caught:
        encoder_family("magic/weights")
    text = str(caught.value)
    assert text.startswith('Encoder "magic" is not known: use ') and text.endswith(".") and "\n" not in text
    assert all(family.usage in text for family in encoder_families())


def test_two_families_of_one_name_are_refused(averaging):
    register_encoder(AveragingFamily())  # as when a notebook's cell runs again

    class Other(AveragingFamily):
        pass

    with pytest.raises(ValueError, match="two encoder families named averaging"):
        register_encoder(Other())


@pytest.mark.parametrize("family", encoder_families(), ids=lambda family: family.name)
def test_built_in_families_are_complete(family):
    assert family.name and family.summary.endswith(".") and family.usage and family.examples
    assert all(encoder_family(example) is family for example in family.examples)
    with pytest.raises(DetectorError, match="image size"):
        family.check_image_size(family.examples[0], 1)
    assert family.check_image_size(family.examples[0], 224) is None


def test_one_family_brings_the_default_encoder():
    assert [family.default_encoder for family in encoder_families()].count(None) == len(encoder_families()) - 1
    family = encoder_family(default_encoder())
    encoder = load_encoder(device="cpu")
    assert (encoder.name, encoder.image_size) == (default_encoder(), family.default_image_size)


def test_capabilities_of_encoders_are_those_of_their_family():
    encoder = load_encoder(device="cpu")
    family = encoder_family(encoder.name)
    assert (encoder.has_text, encoder.is_convolutional) == (family.has_text, family.is_convolutional)
    with_text, without = encoder_examples(has_text=True), encoder_examples(has_text=False)
    assert default_encoder() in without and with_text and {*with_text, *without} == set(encoder_examples())


PLUGIN = """
from medclipad.encoders.registry import EncoderFamily, register_encoder

class Family(EncoderFamily):
    name, summary, usage, examples = "plugin", "Made elsewhere.", '"plugin"', ("plugin",)
    def accepts(self, name):
        return name == "plugin"
    def check_image_size(self, name, image_size):
        pass
    def load(self, name, image_size, dtype, device, progress):
        return "loaded"

register_encoder(Family())
"""


def install(folder: Path, name: str, source: str) -> None:
    """Make a package with an entry point in a folder, as pip would."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[medclipad.encoders]\n{name} = {name}\n")


def in_new_process(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code with the packages of a folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)


def test_entry_point_of_another_package(tmp_path):
    install(tmp_path, "elsewhere", PLUGIN)
    install(tmp_path, "broken", "import a_module_that_is_not_there")
    done = in_new_process(tmp_path, """
import sys
from medclipad.encoders import encoder_families, encoder_family
print(*(family.name for family in encoder_families()))
print("torch" in sys.modules)
print(encoder_family("plugin").load("plugin", None, None, None, None))
""")  # fmt: skip
    names, torch_is_there, loaded = done.stdout.splitlines()
    assert names.split()[-1] == "plugin" and len(names.split()) == 1 + len(encoder_families())
    assert loaded == "loaded"
    assert torch_is_there == "False", "names and help texts do not wait for torch"
    assert "The encoders of broken cannot be used: ModuleNotFoundError" in done.stderr
