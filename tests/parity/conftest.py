"""Arrays that the reference codes computed, in the folder named by MEDCLIPAD_PARITY (default ../shared/parity).

`MEDCLIPAD_PARITY_TABLE=FILE python -m pytest tests/parity` writes each array and its largest difference as a table.
"""

from __future__ import annotations

import gc
import os
import re
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(os.environ.get("MEDCLIPAD_PARITY") or Path(__file__).parents[3] / "shared" / "parity")
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
        rows = [f"| {file} | {key} | {found:.1e} | {tol:.0e} |" for (file, key), (found, tol) in _differences.items()]
        header = ["| file | array | largest difference | tolerance |", "|---|---|---|---|"]
        Path(target).write_text("\n".join(header + rows) + "\n")
        terminalreporter.write_line(f"{len(rows)} arrays compared: {target}")


@cache
def _load(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def parity() -> Callable[[str], dict[str, np.ndarray]]:
    """`parity(name)`: the arrays of a file of the folder."""

    def load(name: str) -> dict[str, np.ndarray]:
        name = name.removesuffix(".npz")
        if not (FOLDER / f"{name}.npz").is_file():
            pytest.skip(f"no {name}.npz in {FOLDER}: set MEDCLIPAD_PARITY to the folder of reference arrays")
        return _load(name)

    return load


@pytest.fixture(scope="session")
def same() -> Callable[..., None]:
    """`same(file, key, ours, theirs, tol)`: asserts equal shapes and values, and notes the largest difference."""

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
def toy_clip(parity, tmp_path_factory) -> Callable[[str], str]:
    """`toy_clip("gelu" | "quickgelu")`: encoder name of the toy CLIP with its checkpoint, for `load_encoder`."""
    weights = {**parity("toy_clip_visual"), **parity("toy_clip_text")}
    file = tmp_path_factory.mktemp("toy_clip") / "toy.pt"
    torch.save({key: torch.from_numpy(value.astype(np.float32)) for key, value in weights.items()}, file)

    from medclipad.compat import ensure_torchvision

    ensure_torchvision()
    import open_clip

    open_clip.add_model_config(FOLDER)
    return lambda activation: f"toy-clip-{activation}/{file}"


def recipe_array(key: str, shape: tuple[int, ...], std: float, seed: int, mean: float = 0) -> torch.Tensor:
    """Weights of the ViT-L files: portable pseudo-random numbers on a power-of-two grid, rounded to float16."""
    n = int(np.prod(shape))
    raw = np.random.PCG64(zlib.crc32(key.encode()) ^ seed).random_raw(-(-n // 8)).view(np.int8)[:n]
    values = raw.astype(np.float32) * np.float32(2.0 ** -round(np.log2(73.9 / std))) + np.float32(mean)
    return torch.from_numpy(values.reshape(shape).astype(np.float16))


def recipe_std(key: str, vision_width: int, text_width: int) -> tuple[float, float]:
    """(std, mean) of an OpenAI state-dict key."""
    width = vision_width if key.startswith("visual.") else text_width
    table = (
        (r"ln_\w+\.weight$", 0.1, 1.0),
        (r"bias$", 0.05, 0.0),
        (r"attn\.in_proj_weight$", 1.6 * width**-0.5, 0.0),
        (r"attn\.out_proj\.weight$", 0.35 * width**-0.5, 0.0),
        (r"mlp\.c_fc\.weight$", width**-0.5, 0.0),
        (r"mlp\.c_proj\.weight$", 0.35 * (4 * width) ** -0.5, 0.0),
        (r"^visual\.(class|positional)_embedding$", 0.3, 0.0),
        (r"^visual\.conv1\.weight$", 2 * 588**-0.5, 0.0),
        (r"^(text_projection|visual\.proj)$", width**-0.5, 0.0),
        (r"^positional_embedding$", 0.2, 0.0),
        (r"^token_embedding\.weight$", 0.6, 0.0),
    )
    return next((std, mean) for pattern, std, mean in table if re.search(pattern, key))


@pytest.fixture
def vitl_clip(tmp_path) -> Callable[[str, int], str]:
    """`vitl_clip(architecture, seed)`: encoder name of a ViT-L with the weights of the parity README's recipe."""

    def make(architecture: str, seed: int) -> str:
        from medclipad.compat import ensure_torchvision

        ensure_torchvision()
        import open_clip

        with torch.device("meta"):
            model = open_clip.CLIP(**open_clip.get_model_config(architecture))
        vision, text = model.visual.class_embedding.shape[0], model.token_embedding.weight.shape[1]
        state = {}
        for key, value in model.state_dict().items():
            if key == "logit_scale":
                state[key] = torch.tensor(0.0)
                continue
            std, mean = recipe_std(key, vision, text)
            state[key] = recipe_array(key, tuple(value.shape), std, seed, mean)
        torch.save(state, tmp_path / "recipe.pt")
        return f"{architecture}/{tmp_path / 'recipe.pt'}"

    yield make
    (tmp_path / "recipe.pt").unlink(missing_ok=True)
    gc.collect()


@pytest.fixture(scope="session")
def recipe() -> Callable[..., torch.Tensor]:
    """`recipe(key, shape, std, seed)`: weights as in the parity README."""
    return recipe_array
