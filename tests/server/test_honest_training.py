"""A version serves by itself only after a measurement with the power to say that it is no worse than the one in use."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from live_server import Server, head

from medclipad.client import Client
from medclipad.detection.cases import Case
from medclipad.evaluation.comparison import MIN_SICK, HeldOutEvaluation, HeldOutMetrics, compare
from medclipad.methods.common.auroc import auroc
from medclipad.server.training.measurement import choose_held_out
from medclipad.volume import Volume, write_volume

NORMAL, SICK = ([f"{kind}_{number}" for number in range(count)] for kind, count in (("n", 4), ("l", 6)))
# Hardly trained, and without its memory.
LITTLE = {"planes": "axial", "shots": 1, "epochs": 1, "max_steps": 1, "memory_share": 0}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server with four normal heads and six with a labelled lesion, and a good version in use."""
    studies = tmp_path_factory.mktemp("honest") / "studies"
    (studies / "labels" / "final").mkdir(parents=True)
    for number, name in enumerate([*NORMAL, *SICK]):
        volume, mask = head(50 + number, name in SICK)
        write_volume(volume, studies / f"{name}.nii.gz")
        if name in SICK:
            write_volume(mask, studies / "labels" / "final" / f"{name}.nii.gz")
    server = Server(studies, MEDCLIPAD_SCORING="off")
    client = server.client
    for name in NORMAL:
        client.set_image_info(name, {"normal": True})
    good = {"planes": "axial", "shots": "all", "epochs": 2}
    client.train("mediclip", {**good, "normal": NORMAL[:2], "select": "always", "name": "good"})
    client.wait_trained(seconds=300)
    yield client
    server.stop()
    assert "Traceback" not in server.log, server.log


def trained(client: Client, name: str, **params: object) -> dict:
    """Return the outcome of a training; "good" is in use before it."""
    client.select_version("mediclip", "good")
    client.train("mediclip", {**params, "name": name})
    outcome = client.wait_trained(seconds=300)["outcome"]
    assert outcome["previous"] == "good" and "\n" not in outcome["verdict"]
    assert client.versions()["mediclip"]["current"] == (name if outcome["selected"] else "good")
    return outcome


@pytest.mark.parametrize(
    "params",
    [
        {"normal": NORMAL[:1]},
        {"normal": NORMAL[:1], "abnormal": SICK[:1], "held_out": 0.1},
    ],
    ids=["normal ones alone", "one of each"],
)
def test_labels_that_a_request_does_not_name_are_measured_on(labelled: Client, params: dict) -> None:
    outcome = trained(labelled, f"poor{len(labelled.versions()['mediclip']['versions'])}", **params, **LITTLE)
    assert outcome["compared"] and outcome["held_out"]["patients"] >= 5
    assert outcome["held_out"]["abnormal_patients"] >= MIN_SICK
    assert not {*outcome["held_out"]["images"]} & {*params["normal"]}
    assert not outcome["selected"] and "good stays in use" in outcome["verdict"], outcome["verdict"]
    for side in ("old", "new"):
        assert set(outcome[side]) == {"slice_auroc", "voxel_auroc", "average_precision", "dice"}
        assert all(0 <= value <= 1 for value in outcome[side].values())
    assert f"{outcome['new']['slice_auroc']:.2f}" in outcome["verdict"]
    kept = next(each for each in labelled.versions()["mediclip"]["versions"] if each["name"] == outcome["version"])
    assert kept["metrics"]["held_out"]["slice_auroc"] == outcome["new"]["slice_auroc"]
    assert labelled.select_version("mediclip", outcome["version"])["current"] == outcome["version"], "if asked, it does"


def test_a_version_that_is_as_good_serves_by_itself(labelled: Client) -> None:
    """Trained on everything: as many patients as a comparison needs are kept out."""
    outcome = trained(labelled, "again", planes="axial", shots="all", epochs=2, memory_size=4000)
    assert outcome["compared"] and outcome["held_out"]["patients"] >= 5, outcome["held_out"]
    assert outcome["held_out"]["abnormal_patients"] >= MIN_SICK
    better = outcome["new"]["slice_auroc"] >= outcome["old"]["slice_auroc"] - 0.02
    assert outcome["selected"] is better, outcome["verdict"]


def test_without_a_comparison_the_old_version_stays(labelled: Client) -> None:
    outcome = trained(labelled, "unmeasured", normal=NORMAL[:1], held_out=0, **LITTLE)
    assert not outcome["compared"] and not outcome["selected"] and outcome["new"] is None
    assert outcome["verdict"].startswith("Not compared") and outcome["verdict"].endswith("good stays in use.")
    assert labelled.select_version("mediclip", "unmeasured")["current"] == "unmeasured", "the reader decides"


# --- the rules ---------------------------------------------------------------------------------------------------


def case(name: str, sick: bool) -> Case:
    volume = Volume(np.ones((8, 8, 12), np.float32), np.eye(4), name=name)
    mask = np.zeros(volume.shape, np.uint8)
    mask[2:4, 2:4, 5:8] = sick
    return Case(volume, volume.with_array(mask))


@pytest.mark.parametrize(
    ("named", "others", "enough"),
    [
        ((4, 6), (0, 0), True),  # (normal, abnormal) volumes
        ((0, 12), (0, 0), True),
        ((1, 1), (2, 3), True),
        ((4, 4), (0, 0), False),
        ((2, 0), (0, 2), False),
    ],
)
def test_enough_patients_are_held_out_where_there_are(
    named: tuple[int, int], others: tuple[int, int], enough: bool
) -> None:
    cases, unnamed = (
        [*(case(f"{who}n{k}", False) for k in range(n)), *(case(f"{who}a{k}", True) for k in range(a))]
        for who, (n, a) in (("named", named), ("other", others))
    )
    kept, held = choose_held_out(cases, unnamed, 0.25, "axial", learned=set())
    sick = [part for part in held if part.truth("axial").any()]
    assert (len(held) >= 5 and len(sick) >= MIN_SICK) is enough, (len(held), len(sick))
    assert not {part.case.volume.name for part in held if not part.case.held_out} & {
        each.volume.name for each in kept if not each.held_out
    }
    assert choose_held_out(cases, unnamed, 0, "axial", set())[1] == []


def evaluation(scores: np.ndarray, truth: np.ndarray, volumes: np.ndarray) -> HeldOutEvaluation:
    none = np.zeros(0)
    metrics = HeldOutMetrics(slice_auroc=auroc(scores, truth))
    return HeldOutEvaluation(metrics, scores, truth, volumes, none, none.astype(int))


@pytest.mark.parametrize(
    ("patients", "sick", "noise", "not_worse"),
    [(12, 6, 0.01, True), (12, 6, 1.0, False), (4, 4, 0.01, None), (8, 2, 0.01, None)],
    ids=["the same", "much worse", "too few patients", "too few with an anomaly"],
)
def test_no_worse_must_be_shown(patients: int, sick: int, noise: float, not_worse: bool | None) -> None:
    rng = np.random.default_rng(0)
    volumes = np.repeat(np.arange(patients), 6)
    truth = (np.arange(6 * patients) % 2 == 0) & (volumes < sick)
    old = truth + rng.normal(0, 0.4, len(truth))
    new = old + rng.normal(0, noise, len(truth))
    assert compare(evaluation(old, truth, volumes), evaluation(new, truth, volumes)).not_worse is not_worse


def test_no_difference_that_was_measured_on_little_serves() -> None:
    """A loss that too little data cannot tell from chance is not measurable, but nothing shows that there is none."""
    volumes = np.repeat(np.arange(5), 4)
    truth = (np.arange(20) % 2 == 0) & (volumes < 3)
    rng = np.random.default_rng(3)
    old, new = truth + rng.normal(0, 0.5, 20), truth + rng.normal(0, 0.9, 20)
    outcome = compare(evaluation(old, truth, volumes), evaluation(new, truth, volumes))
    assert not outcome.worse and outcome.not_worse is False
