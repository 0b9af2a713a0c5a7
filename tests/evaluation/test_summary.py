"""Tests of the figures over all cases: by hand, against scikit-learn, and that their intervals cover."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic_core import to_json
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score, roc_curve

from medclipad.errors import MedCLIPADError
from medclipad.evaluation import CaseEvaluation, score_case, summarise, summarise_groups
from medclipad.evaluation.bootstrap import MIN_PATIENTS, RESAMPLES, PatientBootstrap
from medclipad.evaluation.froc_drawing import draw_froc, save_froc
from medclipad.evaluation.summary import as_dict
from medclipad.evaluation.summary_tables import counts, figure_text, interval_note, summary_tables
from medclipad.evaluation.volumes import volume_figures, weighted_roc
from tests.evaluation.hand_made import calibration, result_of, row

KNOWN = calibration(tuple(np.linspace(0.1, 0.5, 19)), ((0.85, 0.5), (0.65, 1.0), (0.5, 2.0)))
HIT = (row(0, 0.9, 0.9, 0, 0.7, 0), row(0, 1, 1, 0, 0, 0))  # a found lesion, and a false region of .7
MISS = (row(0, 0, 0, 0, 0.6, 0), row(0, 1, 1, 0, 0, 0))  # a missed lesion, and a false region of .6
QUIET = (row(0, 0.2, 0, 0, 0, 0), None)
ALARM = (row(0, 0.2, 0, 0, 0.8, 0), None)  # a false region of .8 in a normal scan


def case(values: np.ndarray, truth: np.ndarray | None, **more) -> CaseEvaluation:
    volume, result = result_of(values, KNOWN)
    evaluation = score_case(volume, None if truth is None else volume.with_array(truth), result, 1.0)
    return CaseEvaluation(**{**vars(evaluation), **more})


def several(hits: int = 6, misses: int = 2, quiet: int = 5, alarms: int = 1) -> list[CaseEvaluation]:
    kinds = ((HIT, hits), (MISS, misses), (QUIET, quiet), (ALARM, alarms))
    return [case(*kind) for kind, count in kinds for _ in range(count)]


def test_by_hand():
    cases = several()
    found = summarise(cases)
    assert (found.scans, found.abnormal_scans, found.patients, found.abnormal_patients, found.lesions) == (
        14,
        8,
        14,
        8,
        8,
    )
    # Six of eight lesions are found from a peak of .9, where nothing is false.
    assert [point.sensitivity.value for point in found.froc] == [0.75] * 7 and found.froc_mean.value == 0.75
    assert [point.limit for point in found.froc] == pytest.approx([0.9] * 7)
    # Above .85 nothing is false; above .65 six regions of .7 and one of .8; above .5 also two of .6.
    assert [(own.promised, own.false_per_scan.value, own.sensitivity.value) for own in found.promised] == [
        (0.5, 0, 0.75),
        (1, pytest.approx(7 / 14), 0.75),
        (2, pytest.approx(9 / 14), 0.75),
        *[(rate, pytest.approx(9 / 14), 0.75) for rate in (4, 8)],
    ]
    assert [(size.size, size.lesions) for size in found.sizes] == [
        ("< 6 mm", 8),
        ("6–12 mm", 0),
        ("12–20 mm", 0),
        ("≥ 20 mm", 0),
    ]
    assert found.sizes[0].sensitivity["1"].value == 0.75 and found.sizes[1].sensitivity["1"].value is None
    # Volume scores: .9 six times, .6 twice; normal: .2 five times, .8 once.
    assert found.volumes.auroc.value == pytest.approx((6 * 6 + 2 * 5) / 48)
    assert (found.volumes.fpr_at_95_tpr.value, found.volumes.unit) == (pytest.approx(1 / 6), "scans")
    normal, abnormal = found.volumes.normal, found.volumes.abnormal
    assert (normal.alarms, normal.judged, abnormal.alarms, abnormal.judged) == (
        1,
        6,
        8,
        8,
    ) and found.volumes.alpha == 0.05


def test_intervals_hold_the_figure_and_are_reproducible():
    cases = several()
    found = summarise(cases)
    assert found == summarise(cases) and found != summarise(cases, seed=1)
    for estimate in (found.froc_mean, found.froc[3].sensitivity, found.volumes.auroc, found.volumes.fpr_at_95_tpr,
                     found.promised[1].false_per_scan, found.sizes[0].sensitivity["2"],
                     found.means["average_precision"].detector, found.volumes.normal.share):  # fmt: skip
        assert estimate.value is not None and estimate.low is not None and estimate.high is not None
        assert estimate.low < estimate.value < estimate.high, estimate
    assert found.froc_curve.low[0] == found.froc[0].sensitivity.low and len(found.froc_curve.low) == 49


def test_all_found_is_no_proof_of_certainty():
    every = summarise(several(hits=8, misses=0)).froc_mean
    exact = binomtest(8, 8).proportion_ci(0.95, method="exact")
    assert (every.value, every.high) == (1, 1) and every.low == pytest.approx(exact.low)
    none = summarise(several(hits=0, misses=8)).froc_mean
    assert (none.value, none.low) == (0, 0) and none.high == pytest.approx(1 - exact.low)


def test_too_few_patients_have_no_interval():
    few = [case(*HIT, patient=f"p{number % (MIN_PATIENTS - 1)}") for number in range(12)]
    found = summarise(few)
    assert (found.scans, found.patients) == (12, 4)
    assert found.froc_mean.value == 1 and found.froc_mean.low is None
    assert "Fewer than 5 patients with a lesion" in interval_note(found)
    assert "Fewer than 20 patients with a lesion" in interval_note(summarise(several()))
    assert "Fewer" not in interval_note(summarise(several(hits=18)))


def test_scans_of_a_patient_are_drawn_together():
    patients = ["a", "a", "a", "b", "c", "d", "e", "e"]
    draws = PatientBootstrap(patients, [True] * 4 + [False] * 4)
    weights = draws.weights
    assert weights.shape == (1 + RESAMPLES, 8) and (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 6] == weights[:, 7]).all()
    assert (weights[:, 0] + weights[:, 3] == 2).all(), "abnormal patients are drawn apart from normal ones"
    assert draws.patients() == 5 and draws.patients(np.array([True] * 3 + [False] * 5)) == 1
    # Eight scans of eight patients are more certain than the same of four.
    apart = summarise(several())
    cases = [case(*kind, patient=str(n // 2)) for n, kind in enumerate([HIT] * 12 + [MISS] * 4)]
    pairs = summarise(cases).froc_mean
    alone = summarise([CaseEvaluation(**{**vars(one), "patient": None}) for one in cases]).froc_mean
    assert pairs.value == alone.value == 0.75 and apart.patients == 14
    assert pairs.low is not None and alone.low is not None and pairs.low < alone.low


def test_intervals_cover():
    """Of patients with one to three lesions each, whose sensitivity varies; 95 % would be ideal."""
    rng, covered = np.random.default_rng(0), 0
    for number in range(100):
        lesions = rng.integers(1, 4, 40)
        found = rng.binomial(lesions, rng.beta(1.8, 1.2, 40))
        draws = PatientBootstrap(range(40), [True] * 40, seed=number)
        estimate = draws.estimate(draws.ratio(found, lesions))
        assert estimate.low is not None and estimate.high is not None
        covered += estimate.low <= 0.6 <= estimate.high
    assert 88 <= covered <= 100


def test_volume_figures_equal_scikit_learn():
    rng = np.random.default_rng(0)
    sick = rng.random(60) < 0.4
    scores = np.round(rng.random(60) + 0.4 * sick, 1)  # with ties
    draws = PatientBootstrap(range(60), sick.tolist())
    found = volume_figures(scores.tolist(), sick.tolist(), [None] * 60, [None] * 60, draws)
    assert found.auroc.value == pytest.approx(roc_auc_score(sick, scores))
    fpr, tpr, _ = roc_curve(sick, scores, drop_intermediate=False)
    assert found.fpr_at_95_tpr.value == fpr[tpr >= 0.95].min()
    limit = np.sort(scores[sick])[-int(np.ceil(0.95 * sick.sum()))]
    assert found.fpr_at_95_tpr.value == (scores[~sick] >= limit).mean()
    assert found.alpha is None and found.normal.judged == 0 and found.normal.share.value is None


def test_each_resample_equals_scikit_learn():
    rng = np.random.default_rng(1)
    sick = rng.random(30) < 0.5
    scores, weights = np.round(rng.random(30) + 0.3 * sick, 1), rng.integers(0, 3, (20, 30))
    weights[19, sick] = 0
    areas, rates = weighted_roc(scores, sick, weights)
    for area, rate, weight in zip(areas[:19], rates, weights, strict=False):
        fpr, tpr, _ = roc_curve(sick, scores, sample_weight=weight, drop_intermediate=False)
        assert area == pytest.approx(roc_auc_score(sick, scores, sample_weight=weight))
        assert rate == pytest.approx(fpr[np.argmax(tpr >= 0.95)])
    assert np.isnan([areas[19], rates[19]]).all(), "no abnormal scan was drawn"


def test_a_scan_that_was_not_analysed_counts_lowest():
    sick = [True, True, False, False]
    draws = PatientBootstrap(range(4), sick)
    found = volume_figures([0.9, np.nan, 0.1, 0.0], sick, [True, None, False, None], [0.05, None, 0.05, None], draws)
    assert found.auroc.value == 0.5 and found.fpr_at_95_tpr.value == 1
    assert (found.abnormal.scans, found.abnormal.judged, found.abnormal.alarms) == (2, 1, 1)
    one_kind = volume_figures([0.9, 0.8], [True, True], [None] * 2, [None] * 2, PatientBootstrap("ab", [True, True]))
    assert one_kind.auroc.value is None and one_kind.fpr_at_95_tpr.value is None


def test_means_are_those_of_the_cases_beside_the_baseline():
    cases = several()
    mean = summarise(cases).means["average_precision"]
    own = [one.metrics.average_precision for one in cases if one.metrics.average_precision is not None]
    trivial = [one.baseline.average_precision for one in cases if one.baseline.average_precision is not None]
    assert (mean.detector.value, mean.baseline.value) == (pytest.approx(np.mean(own)), pytest.approx(np.mean(trivial)))
    assert mean.difference.value == pytest.approx(np.mean(own) - np.mean(trivial))
    assert summarise([case(*QUIET)]).means["voxel_auroc"].detector.value is None


def test_subgroups():
    cases = [
        *(CaseEvaluation(**{**vars(one), "groups": {"scanner": "A", "site": "x"}}) for one in several()),
        *(CaseEvaluation(**{**vars(one), "groups": {"scanner": "B", "site": "x"}}) for one in several(hits=2)),
        case(*MISS, groups={"scanner": "", "site": "x"}),
    ]
    groups = summarise_groups(cases)
    assert list(groups) == ["scanner"], "all are of one site"
    assert list(groups["scanner"]) == ["A", "B", "not given"]
    assert groups["scanner"]["A"] == summarise(several())
    assert [part.froc_mean.value for part in groups["scanner"].values()] == [0.75, 0.5, 0]
    assert summarise_groups(several()) == {}
    table = summary_tables(summarise(cases), groups)[-1]
    assert table.headings[0] == "scanner" and [line[0] for line in table.rows] == ["A", "B", "not given"]


def test_normal_scans_alone_have_false_regions():
    found = summarise(several(hits=0, misses=0))
    assert (found.lesions, found.froc_mean.value, found.volumes.auroc.value) == (0, None, None)
    assert found.promised[1].false_per_scan.value == pytest.approx(1 / 6)
    tables = summary_tables(found, {})
    assert len(tables) == 2 and "normal scans with p ≤ 0.05" in [line[0] for line in tables[1].rows]
    assert counts(found) == "6 scans of 6 patients: 0 abnormal with 0 lesions, 6 normal"


def test_json_holds_all_figures_and_rules():
    cases = several()
    data = json.loads(to_json(as_dict(cases, summarise(cases), summarise_groups(cases))))
    assert set(data) == {"cases", "mean", "summary", "groups", "rules"}
    assert (
        data["mean"]["detector"]["average_precision"]
        == data["summary"]["means"]["average_precision"]["detector"]["value"]
    )
    first = data["cases"][0]
    assert first["detector"] == cases[0].metrics.model_dump() and first["baseline"] == cases[0].baseline.model_dump()
    (lesion,) = first["lesions"]
    assert lesion["peak"] == pytest.approx(0.9) and lesion["volume_ml"] == pytest.approx(0.002)
    assert first["false_regions"] == [pytest.approx(0.7)] and data["cases"][6]["lesions"][0]["peak"] is None
    assert "LUNA16" in data["rules"]["hit"] and "patients" in data["rules"]["intervals"]
    assert data["summary"]["froc"][0]["sensitivity"].keys() == {"value", "low", "high"}


def test_no_case_is_refused():
    with pytest.raises(MedCLIPADError, match="no case"):
        summarise([])


def test_tables_show_the_figures():
    tables = summary_tables(summarise(several()), {})
    assert [table.headings[0] for table in tables] == [
        "mean over cases", "FROC: false regions per scan", "diameter of the lesion", "volume level"
    ]  # fmt: skip
    froc = tables[1]
    assert [line[0] for line in froc.rows] == ["1/8", "1/4", "1/2", "1", "2", "4", "8", "mean"]
    assert all(line[1].startswith("0.750 [") for line in froc.rows)
    assert froc.rows[0][3:] == ["–", "–"], "the normal scans support no 1/8 false region per scan"
    assert all(len(line) == len(table.headings) for table in tables for line in table.rows)
    assert any("LUNA16" in note for note in froc.notes)
    assert tables[3].rows[2][0] == "normal scans with p ≤ 0.05" and tables[3].rows[2][1].startswith("1 of 6: 0.167 [")
    assert figure_text(summarise(several()).means["best_dice"].difference, signed=True)[0] in "+-"


def test_the_curve_is_drawn_with_its_band(tmp_path):
    axes = draw_froc(summarise(several()), "mine").axes[0]
    line, own = axes.lines
    assert np.allclose(line.get_ydata(), 0.75) and len(axes.collections) == 1
    assert np.allclose(own.get_xdata(), [7 / 14, 9 / 14, 9 / 14, 9 / 14]), "where the own limits give false regions"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1/8", "1/4", "1/2", "1", "2", "4", "8"]
    assert axes.get_title() == "mine · 8 lesions, 14 scans of 14 patients"
    few = draw_froc(summarise([case(*HIT)])).axes[0]
    assert not few.collections, "no band without an interval"
    assert not draw_froc(summarise([case(*QUIET)])).axes[0].lines
    save_froc(tmp_path / "new" / "froc.png", summarise(several()))
    assert (tmp_path / "new" / "froc.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "file").write_text("")
    with pytest.raises(MedCLIPADError, match="cannot be written"):
        save_froc(tmp_path / "file" / "froc.png", summarise(several()))
