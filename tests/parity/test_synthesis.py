"""MediCLIP's synthetic anomalies, replayed from the random draws of the reference code (mediclip_synthesis.npz)."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medclipad.methods.mediclip.synthesis import CutPaste, GaussIntensityChange, Identity, Source, cutpaste, source
from medclipad.methods.mediclip.synthesis.perlin import perlin_noise

FILE = "mediclip_synthesis"
TASKS = {
    "CutpasteTask": lambda support: CutPaste(support),
    "GaussIntensityChangeTask": lambda support: GaussIntensityChange(),
    "SourceTask": lambda support: Source(),
    "IdentityTask": lambda support: Identity(),
}


class Replay:
    """Stands for a numpy Generator: it returns recorded draws, and fails on any other draw."""

    def __init__(self, draws: list, coins: list[np.ndarray]) -> None:
        self.draws = [draw for draw in draws if not _has_one_outcome(draw)]
        self.coins = coins

    def _next(self, *names: str) -> tuple[str, list, dict, object]:
        assert self.draws, f"{names[0]} drawn after the last recorded draw"
        draw = self.draws.pop(0)
        assert draw[0].rsplit(".", 1)[-1] in names, f"{names[0]} drawn where {draw} was recorded"
        return draw

    def integers(self, low, high=None, size=None, dtype=np.int64, endpoint=False):
        low, high = (0, low) if high is None else (low, high)
        name, args, kwargs, value = self._next("integers", "randint", "choice", "randn")
        if name == "np.random.randn":
            assert (low, high, list(size)) == (0, 2, args)
            return np.unpackbits(self.coins.pop(0))[: np.prod(args)].reshape(args).astype(dtype)
        if name == "random.choice":
            assert [low, high] == [0, *args]
        elif name == "np.random.choice":
            assert [low, high] == [0, len(args[0])]
            return args[0].index(value)
        elif name == "np.random.randint":
            assert [low, high] == ([0, *args] if args else [kwargs["low"], kwargs["high"]])
        else:
            assert [list(low), list(high)] == args and endpoint == kwargs["endpoint"]
        return np.asarray(value, dtype)

    def uniform(self, low, high):
        name, args, _, value = self._next("uniform", "rotate_deg")
        assert [low, high] == pytest.approx([-90, 90] if name.endswith("rotate_deg") else args)
        return value

    def random(self, size=None):
        name, args, _, value = self._next("random", "rand", "uniform")
        assert args == {"np.random.rand": [2, 2], "np.random.uniform": [0, 1]}.get(name, [])
        return np.array(value)

    def gamma(self, shape, scale):
        _, args, _, value = self._next("gamma")
        assert [shape, scale] == args
        return value

    def normal(self, scale):
        _, _, kwargs, value = self._next("normal")
        assert scale == kwargs["scale"]
        return value

    def exponential(self, scale):
        _, _, kwargs, value = self._next("exponential")
        assert scale == kwargs["scale"]
        return value

    def choice(self, options):
        _, args, _, value = self._next("choice")
        assert list(options) == pytest.approx(args[0], rel=1e-15)
        return value


def _has_one_outcome(draw: list) -> bool:
    """Return whether a draw has one possible value, such as the noise's resolution: our code does not draw it."""
    name, args, kwargs, _ = draw
    if name == "np.random.randint":
        return kwargs.get("high") == kwargs.get("low", 0) + 1
    return name.endswith("maker.rng.choice") and len(args[0]) == 1


def _cases(arrays: dict, task: str) -> dict[str, dict]:
    cases = json.loads(str(arrays["meta_json"]))
    assert {case.rsplit("_", 1)[0] for case in cases} == set(TASKS)
    return {case: meta for case, meta in cases.items() if case.startswith(f"{task}_")}


def _coins(arrays: dict, case: str) -> list[np.ndarray]:
    prefix = f"{case}.np.random.randn_"
    return [arrays[f"{prefix}{n}"] for n in range(sum(key.startswith(prefix) for key in arrays))]


@pytest.mark.parametrize("name", TASKS)
def test_images_and_masks(parity, same, monkeypatch, name):
    arrays = parity(FILE)
    for case, meta in _cases(arrays, name).items():
        task, image = TASKS[name](arrays["support_images"]), arrays["input_images"][meta["input_index"]]
        replay = Replay(meta["draws"], _coins(arrays, case))
        regions = _spy(monkeypatch, task, "alter") if name != "IdentityTask" else []
        result, mask = task(image, replay)
        same(FILE, f"{case}.output_uint8", result, arrays[f"{case}.output_uint8"], 0)
        same(FILE, f"{case}.mask", mask, arrays[f"{case}.mask"], 0)
        assert (result.dtype, mask.dtype) == (np.uint8, np.float64)
        if name == "IdentityTask":
            continue  # the reference draws a region and does not use it
        assert not replay.draws
        assert len(regions) == meta["loops"]
        working = image.astype(np.float64)
        for n, ((_, window, region, _), (patch, _)) in enumerate(regions):
            same(FILE, f"{case}.patch_mask{n}", region.mask, arrays[f"{case}.patch_mask{n}"], 0)
            same(FILE, f"{case}.corner{n}", [side.start for side in window], arrays[f"{case}.corner{n}"], 0)
            working[window] = patch
        if f"{case}.output_float" in arrays:
            same(FILE, f"{case}.output_float", working, arrays[f"{case}.output_float"], 1e-12)


@pytest.mark.parametrize("name", ["CutpasteTask", "GaussIntensityChangeTask"])
def test_perlin_noise(parity, same, name):
    arrays = parity(FILE)
    for case, meta in _cases(arrays, name).items():
        sides, count = [], 0
        for draw, _, kwargs, value in meta["draws"]:
            if draw == "np.random.randint" and "size" not in kwargs:
                sides = [*sides, value][-2:]
            elif draw == "np.random.rand":
                theirs = arrays[f"{case}.perlin_noise{count}"]
                ours = perlin_noise(tuple(sides), np.array(value))
                tol = 1e-12 if theirs.dtype == np.float64 else 1e-6
                same(FILE, f"{case}.perlin_noise{count}", ours, theirs, tol)
                count += 1
        assert count


def test_pasted_patches(parity, same, monkeypatch):
    arrays = parity(FILE)
    for case, meta in _cases(arrays, "CutpasteTask").items():
        calls = _spy(monkeypatch, cutpaste, "affine_transform")
        CutPaste(arrays["support_images"])(arrays["input_images"][meta["input_index"]], Replay(meta["draws"], []))
        assert len(calls) == meta["loops"]
        for n, ((src, matrix), out, offset) in enumerate((a, o, k["offset"]) for a, o, k in calls.with_options):
            for key, ours in {"src": src, "matrix": matrix, "offset": offset, "out": out}.items():
                key = f"{case}.affine_transform{n}.{key}"
                same(FILE, key, ours, arrays[key], 1e-15 if key.endswith("matrix") else 0)
        monkeypatch.undo()


def test_stretched_patches(parity, same, monkeypatch):
    arrays = parity(FILE)
    for case, meta in _cases(arrays, "SourceTask").items():
        task = Source()
        regions, calls = _spy(monkeypatch, task, "alter"), _spy(monkeypatch, source, "stretched")
        task(arrays["input_images"][meta["input_index"]], Replay(meta["draws"], []))
        assert len(calls) == meta["loops"]
        for n, (((before, window, _, _), (patch, _)), ((_, points, _, _), moved)) in enumerate(
            zip(regions, calls, strict=True)
        ):
            key = f"{case}.map_coordinates{n}"
            mapping = np.indices(patch.shape).astype(np.float64)
            mapping[:, points[0], points[1]] = moved
            same(FILE, f"{key}.src", before[window], arrays[f"{key}.src"], 0)
            same(FILE, f"{key}.mapping", mapping, arrays[f"{key}.mapping"], 1e-9)
            same(FILE, f"{key}.out", patch, arrays[f"{key}.out"], 0)
        monkeypatch.undo()


class _Calls(list):
    """Positional arguments and result of each call; `with_options` has the keyword arguments too."""

    def __init__(self) -> None:
        self.with_options = []


def _spy(monkeypatch, owner, name: str) -> _Calls:
    calls, function = _Calls(), getattr(owner, name)

    def call(*args, **kwargs):
        args = tuple(a.copy() if isinstance(a, np.ndarray) else a for a in args)
        result = function(*args, **kwargs)
        calls.append((args, result))
        calls.with_options.append((args, result, kwargs))
        return result

    monkeypatch.setattr(owner, name, call)
    return calls
