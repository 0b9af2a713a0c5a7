"""The mixture draws which anomaly an image gets."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from medclipad.errors import TrainingError
from medclipad.methods.mediclip.synthesis import MIXTURES, AnomalySynthesis

SUPPORT = np.random.default_rng(0).integers(0, 256, (4, 128, 128), dtype=np.uint8)


def frequencies(synthesis: AnomalySynthesis, draws: int = 3000) -> dict[str, float]:
    """Return the share of the draws that each task gets."""
    synthesis.tasks = {name: lambda image, rng, name=name: name for name in synthesis.tasks}
    rng = np.random.default_rng(0)
    return {name: n / draws for name, n in Counter(synthesis(SUPPORT[0], rng) for _ in range(draws)).items()}


@pytest.mark.parametrize("variant", MIXTURES)
def test_each_variant_draws_its_tasks_evenly(variant):
    tasks = ["cutpaste", "gauss", "source"] + ["identity"] * (variant == "reference")
    found = frequencies(AnomalySynthesis(SUPPORT, variant))
    assert found == pytest.approx(dict.fromkeys(tasks, 1 / len(tasks)), abs=0.03)


def test_the_reference_is_the_default():
    assert set(AnomalySynthesis(SUPPORT).tasks) == set(MIXTURES["reference"])
    assert AnomalySynthesis(SUPPORT).tasks["cutpaste"].variant == "reference"


def test_the_variant_reaches_the_tasks():
    tasks = AnomalySynthesis(SUPPORT, "paper").tasks
    assert tasks["cutpaste"].variant == tasks["source"].variant == "paper"


def test_own_frequencies():
    found = frequencies(AnomalySynthesis(SUPPORT, tasks={"gauss": 3, "source": 1, "identity": 0}))
    assert found == pytest.approx({"gauss": 0.75, "source": 0.25}, abs=0.03)


def test_results_depend_on_the_seed_alone():
    synthesis = AnomalySynthesis(SUPPORT)
    runs = []
    for seed in (1, 1, 2):
        rng = np.random.default_rng(seed)
        runs.append(np.stack([np.stack(synthesis(image, rng)) for image in SUPPORT for _ in range(3)]))
    assert (runs[0] == runs[1]).all() and (runs[0] != runs[2]).any()


def test_some_images_stay_normal_in_the_reference_only():
    for variant, share in (("reference", 0.25), ("paper", 0)):
        synthesis, rng = AnomalySynthesis(SUPPORT, variant), np.random.default_rng(0)
        normal = np.mean([not synthesis(SUPPORT[i % 4], rng)[1].any() for i in range(400)])
        assert normal == pytest.approx(share, abs=0.07)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "papers"}, "no variant 'papers'"),
        ({"tasks": {"sink": 1}}, "no synthesis task 'sink'"),
        ({"tasks": {"gauss": -1, "source": 2}}, "0 or more"),
        ({"tasks": {"gauss": float("nan")}}, "0 or more"),
        ({"tasks": {"gauss": 0}}, "more than 0"),
        ({"tasks": {}}, "more than 0"),
        ({"support": SUPPORT[:0]}, "at least one"),
        ({"support": SUPPORT / 255}, "square uint8"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(TrainingError, match=message):
        AnomalySynthesis(**{"support": SUPPORT, **options})
