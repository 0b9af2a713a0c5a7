"""Arrays that the reference codes computed, in the folder named by MEDCLIPAD_PARITY (default ../shared/parity).

`python -m benchmarks.parity` runs these tests and writes the largest difference of each array to a CSV file, and their
summary to docs/explanation/parity.md.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.recipe import recipe_array, recipe_file
from medclipad.methods.mvfa.prompts import CLASS_NAMES, text_features

FOLDER = Path(os.environ.get("MEDCLIPAD_PARITY") or Path(__file__).parents[3] / "shared" / "parity")
EPSILON = 1e-8  # Adam's: a step on a smaller gradient is its rounding, magnified to up to a learning rate
UNDEFINED = 0.1  # of a file's weights, at most, may have such a first gradient
_differences: dict[tuple[str, str], tuple[float, float]] = {}


def pytest_configure(config):
    config.addinivalue_line("markers", "parity_files(pattern): run with each parity file of this pattern as `file`")


def pytest_generate_tests(metafunc):
    mark = metafunc.definition.get_closest_marker("parity_files")
    if mark:
        # Without any file the pattern itself is the parameter, and `parity` skips with the reason.
        names = sorted(path.stem for path in FOLDER.glob(f"{mark.args[0]}.npz")) or [mark.args[0]]
        metafunc.parametrize("file", names)


def pytest_terminal_summary(terminalreporter):
    target = os.environ.get("MEDCLIPAD_PARITY_TABLE")
    if target and _differences:
        rows = [f"| {file} | {key} | {found:.1e} | {tol:.3g} |" for (file, key), (found, tol) in _differences.items()]
        header = ["| file | array | largest difference | tolerance |", "|---|---|---|---|"]
        Path(target).write_text("\n".join(header + rows) + "\n")
        terminalreporter.write_line(f"{len(rows)} arrays compared: {target}")


@cache
def _load(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def parity() -> Callable[[str], dict[str, np.ndarray]]:
    """Return `parity(name)`, which returns the arrays of a file in the folder."""

    def load(name: str) -> dict[str, np.ndarray]:
        name = name.removesuffix(".npz")
        if not (FOLDER / f"{name}.npz").is_file():
            pytest.skip(f"no {name}.npz in {FOLDER}: set MEDCLIPAD_PARITY to the folder of reference arrays")
        return _load(name)

    return load


@pytest.fixture(scope="session")
def same() -> Callable[..., None]:
    """Return `same(file, key, ours, theirs, tol)`, which asserts equal arrays and notes the largest difference."""

    def check(file: str, key: str, ours, theirs, tol: float) -> None:
        ours = ours.detach().cpu().numpy() if isinstance(ours, torch.Tensor) else np.asarray(ours)
        theirs = np.asarray(theirs)
        assert ours.shape == theirs.shape, f"{file} {key}: shape {ours.shape} instead of {theirs.shape}"
        found = float(np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max())
        earlier = _differences.get((file, key), (0.0, tol))[0]
        _differences[file, key] = max(found, earlier), tol
        assert found <= tol, f"{file} {key}: differs by {found:.3g}, more than {tol:g}"

    return check


@pytest.fixture(scope="session")
def same_weights(same) -> Callable[..., None]:
    """Return `same_weights(file, step, rate, ours, theirs, gradients)`: weights after a step of Adam, to 2e-5.

    `gradients` are those of the first step, by name, as far as they are recorded. Where one is below Adam's epsilon,
    the step depends on the machine: those weights may differ by as much as they can have moved.
    """

    def check(file: str, step: int, rate: float, ours: dict, theirs: dict, gradients: dict) -> None:
        undefined = {key: (value != 0) & (np.abs(value) < EPSILON) for key, value in gradients.items()}
        if undefined:
            assert np.mean(np.concatenate([mask.ravel() for mask in undefined.values()])) < UNDEFINED
        for key, value in theirs.items():
            found = ours[key].detach().reshape(value.shape).numpy()
            skip = undefined.get(key, np.zeros(value.shape, bool))
            same(file, f"step{step}.{key}", found[~skip], value[~skip], 2e-5)
            if skip.any():
                same(file, f"step{step}.{key} (gradient < {EPSILON})", found[skip], value[skip], step * rate)

    return check


@pytest.fixture(scope="session")
def toy_clip(parity, tmp_path_factory) -> Callable[[str], str]:
    """Return `toy_clip("gelu" | "quickgelu")`: the name, for `load_encoder`, of the toy CLIP with its checkpoint."""
    weights = {**parity("toy_clip_visual"), **parity("toy_clip_text")}
    file = tmp_path_factory.mktemp("toy_clip") / "toy.pt"
    torch.save({key: torch.from_numpy(value.astype(np.float32)) for key, value in weights.items()}, file)

    from medclipad.compat import ensure_torchvision

    ensure_torchvision()
    import open_clip

    open_clip.add_model_config(FOLDER)
    names = {config.stem.rpartition("-")[2]: config.stem for config in FOLDER.glob("*gelu.json")}
    return lambda activation: f"{names[activation]}/{file}"


@pytest.fixture
def vitl_clip(tmp_path) -> Callable[[str, int], str]:
    """Return `vitl_clip(architecture, seed)`: the name of a ViT-L with the weights of the parity README's recipe."""

    def make(architecture: str, seed: int) -> str:
        return recipe_file(architecture, tmp_path / "recipe.pt", seed)

    yield make
    (tmp_path / "recipe.pt").unlink(missing_ok=True)
    gc.collect()


@pytest.fixture(scope="session")
def class_of() -> Callable[..., str]:
    """Return `class_of(encoder, features)`: the class with these text features, which full-size files do not name."""

    def find(encoder, expected: np.ndarray) -> str:
        gaps = {}
        for name, words in CLASS_NAMES.items():
            gaps[name] = np.abs(text_features(encoder.text, words).numpy() - expected).max()
            if gaps[name] < 1e-3:
                break
        return min(gaps, key=gaps.get)

    return find


@pytest.fixture(scope="session")
def recipe() -> Callable[..., torch.Tensor]:
    """Return `recipe(key, shape, std, seed)`: weights as in the parity README."""
    return recipe_array
