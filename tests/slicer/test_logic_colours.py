"""What colours, legend, limits and verdict of a map say, without a server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from examples import VERDICT, example, legend_labels, warm
from skimage.color import rgb2lab


def test_colours_are_perceptually_uniform(scene: Any) -> None:
    from MedCLIPADLib.colours import colours

    lab = rgb2lab(colours()[None])[0]
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert steps.std() < 0.05 * steps.mean(), "equal steps of value are equal steps of colour"
    assert (np.diff(lab[:, 0]) > 0).all(), "more is lighter, for colour-blind readers too"


def test_colours_are_on_one_fixed_range_whatever_the_threshold_map_and_detector(scene: Any) -> None:
    results = [example(), example(array=0.6 * warm(), detector="other", scale_top=0.7), example(scale_top=1.0)]
    results[0].set_threshold(0.3)
    results[1].set_threshold(0.72)
    for result, threshold in zip(results, (0.3, 0.72, 0.5), strict=True):
        display = result.node.GetScalarVolumeDisplayNode()
        assert display.GetApplyThreshold() and display.GetLowerThreshold() == pytest.approx(threshold)
        assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == pytest.approx((0.3875, 1.0125))
        assert display.GetColorNode().GetName() == "MedCLIPAD anomaly"
    tables = [result.node.GetDisplayNode().GetColorNode().GetLookupTable() for result in results]
    colours = [[table.GetTableValue(n) for n in range(table.GetNumberOfTableValues())] for table in tables]
    assert colours[0] == colours[1] == colours[2]


def test_the_legend_says_how_rare_a_colour_is_and_no_more_than_the_normal_scans_support(scene: Any) -> None:
    result = example(scale_top=0.95)
    assert result.legend.GetUseColorNamesForLabels() and result.legend.GetLabelFormat() == "%s"
    assert result.legend.GetTitleText() == "In normal scans"
    assert legend_labels(result) == {0.4: "1 in 100", 0.6: "1 in 1,000", 0.8: "1 in 10,000", 0.975: "never seen"}
    assert legend_labels(example(scale_top=0.71)) == {0.4: "1 in 100", 0.6: "1 in 1,000", 0.725: "never seen"}
    close = legend_labels(example(scale_top=0.6))
    assert close == {0.4: "1 in 100", 0.6: "1 in 1,000", 0.7: "never seen"}, "no overlap"
    assert legend_labels(example(scale_top=0.2)) == {0.4: "never seen"}
    uncalibrated = example(scale_top=1.0)
    assert legend_labels(uncalibrated) == {0.4: "0.4", 0.6: "0.6", 0.8: "0.8", 1.0: "1.0"}
    assert uncalibrated.legend.GetTitleText() == "Anomaly"


def test_map_values_are_said_in_words(scene: Any) -> None:
    result = example()
    words = {0.4: "1 in 100", 0.5: "1 in 300", 0.66: "1 in 2,000", 0.88: "1 in 30,000"}
    assert {value: result.in_words(value) for value in words} == words
    assert result.in_words(0.89) == "never seen in 24 normal scans"
    assert example(normal_scans=1).in_words(0.89) == "never seen in 1 normal scan"
    assert example(normal_scans=0).in_words(0.89) == "never seen"
    assert example(scale_top=1.0).in_words(0.66) == "0.660"


def test_the_limit_is_that_of_the_chosen_number_of_false_regions(scene: Any) -> None:
    result = example()
    assert list(result.region_limits) == ["0.5", "1", "2", "8"]
    assert (result.rate(), result.limit(), result.outline()) == ("1", 0.7, 0.5)
    assert (result.rate("0.5"), result.limit("0.5"), result.outline("0.5")) == ("0.5", 0.87, 0.5)
    assert (result.limit("8"), result.outline("8")) == (0.42, 0.42), "a lower limit lowers the outline, as the server's"
    assert result.rate("0.125") == "1", "the normal scans do not support it: the default"
    few = example(region_limits={}, false_regions_per_scan=None)
    assert (few.rate("1"), few.limit("1"), few.outline()) == ("", None, 0.5)


def test_a_verdict_is_shown_once_with_cautions_beside_it(scene: Any) -> None:
    assert example().verdict == VERDICT
    warning = "Slices 10 mm apart, but learned from 5 mm: no verdict is given."
    result = example(warnings=[warning], verdict=f"{warning} Research software: not for diagnosis.")
    assert result.warnings == [warning] and warning not in result.verdict
    assert result.verdict.startswith("No verdict") and result.verdict.endswith("not for diagnosis.")
