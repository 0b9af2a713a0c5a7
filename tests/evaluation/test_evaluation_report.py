"""Tests that the report is self-contained, complete and safe against hostile names, and that its pictures are right."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from medclipad.detection.result import AnomalyResult
from medclipad.errors import MedCLIPADError
from medclipad.evaluation import score_case
from medclipad.evaluation.drawing import TRUTH_COLOUR, draw_scores, image_bytes, save_png
from medclipad.evaluation.drawn_case import DrawnCase, choose_key_slices
from medclipad.evaluation.report import CaseReport, write_report
from medclipad.volume import Slicing, Volume

SHAPE, SPACING = (40, 50, 24), (1.0, 1.0, 3.0)


def make_case(
    lesion: bool = True, shape: tuple[int, int, int] = SHAPE, name: str = "case"
) -> tuple[Volume, AnomalyResult, Volume]:
    """Return a round head with a brighter round lesion in it, the result of a perfect detector, and the truth."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape], indexing="ij"))
    head = (grid**2).sum(axis=0) < 0.8
    spot = ((grid - np.array([0.3, -0.2, 0.1]).reshape(3, 1, 1, 1)) ** 2).sum(axis=0) < (0.05 if lesion else -1)
    rng = np.random.default_rng(0)
    image = head * (100 + 10 * rng.random(shape)) + 40 * spot
    volume = Volume(image.astype(np.int16), np.diag([*SPACING, 1.0]), name=name)
    slicing = Slicing(volume, "axial")
    heat = (spot * 0.9).astype(np.float32)
    scores = slicing.slices(heat).max(axis=(1, 2)).astype(float) + 0.01 * rng.random(len(slicing))
    scores[slicing.slices(head).mean(axis=(1, 2)) < 0.01] = np.nan
    result = AnomalyResult(volume.with_array(heat), scores, head, slicing, "test")
    return volume, result, volume.with_array(spot.astype(np.uint8))


def report_of(volume: Volume, result: AnomalyResult, truth: Volume, description: str = "") -> CaseReport:
    return CaseReport(volume, result, truth, score_case(volume, truth, result, 1.0), description)


class Page(HTMLParser):
    """The tags, addresses, images and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.images: list[bytes] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag, its addresses and its embedded image."""
        self.tags.append(tag)
        for key, value in attrs:
            value = value or ""
            if key in ("src", "href", "data", "srcset", "action", "poster"):
                self.addresses.append(value)
            if tag == "img" and key == "src":
                self.images.append(base64.b64decode(value.partition(",")[2], validate=True))

    def handle_data(self, data: str) -> None:
        """Note the text between tags."""
        self.text += data


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    hostile = make_case(name='<script>alert("x")</script>')
    cases = [
        report_of(*make_case(name="first"), "A ball."),
        report_of(*hostile),
        report_of(*make_case(lesion=False, name="healthy")),
    ]
    path = write_report(folder, cases, "Title & more", "One paragraph.\n\nAnother <one>.", machine="two cores")
    return path, cases


def test_page_is_self_contained(written):
    text = written[0].read_text("utf-8")
    page = Page(text)
    assert page.addresses and all(a.startswith(("data:image/", "#case-")) for a in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    for image in page.images:
        if image.startswith(b"\x89PNG"):
            assert imread(io.BytesIO(image)).ndim == 3
        else:
            assert b"<svg" in image and b'href="http' not in image and b"<script" not in image
    assert sum(image.startswith(b"\x89PNG") for image in page.images) == 3 and len(page.images) == 7


def test_page_holds_every_case_and_number(written):
    path, cases = written
    page = Page(path.read_text("utf-8"))
    assert (page.tags.count("section"), page.tags.count("table")) == (4, 8)
    for text in (
        "Title & more",
        "One paragraph.",
        "Another <one>.",
        '<script>alert("x")</script>',
        "two cores",
        "A ball.",
        "3 scans of 3 patients: 2 abnormal with 2 lesions, 1 normal.",
        "a region finds the lesion that its peak lies in",
    ):
        assert text in page.text
    for case in cases[:2]:
        assert f"{case.evaluation.baseline.voxel_auroc:.3f}" in page.text
    assert "–" in page.text, "an undefined metric is a dash, not a number"
    assert "nan" not in page.text.lower() and "None" not in page.text


def test_json_holds_every_number(written):
    path, cases = written
    data = json.loads(path.with_name("report.json").read_text("utf-8"), parse_constant=lambda text: pytest.fail(text))
    assert [stored["name"] for stored in data["cases"]] == [case.volume.name for case in cases]
    for stored, case in zip(data["cases"], cases, strict=True):
        assert stored["detector"] == case.evaluation.metrics.model_dump()
        assert stored["baseline"] == case.evaluation.baseline.model_dump()
        scores = [np.nan if s is None else s for s in stored["slice_scores"]]
        np.testing.assert_array_equal(scores, case.result.slice_scores)
        assert None in stored["slice_scores"]
        assert stored["shape"] == list(SHAPE) and stored["spacing_mm"] == list(SPACING)
    lesion = np.flatnonzero(cases[0].truth.array.any(axis=(0, 1))).tolist()
    assert data["cases"][0]["lesion_slices"] == lesion and data["cases"][2]["lesion_slices"] == []
    assert data["mean"]["detector"]["voxel_auroc"] == 1
    assert data["machine"] == "two cores"
    assert (data["summary"]["lesions"], data["summary"]["froc_mean"]["value"]) == (2, 1)
    assert "LUNA16" in data["rules"]["hit"]


def test_report_is_replaced_and_needs_a_case(tmp_path):
    case = report_of(*make_case())
    first = write_report(tmp_path / "new" / "folder", [case], "First")
    second = write_report(tmp_path / "new" / "folder", [case], "Second")
    assert first == second and "Second" in second.read_text("utf-8")
    assert {p.name for p in second.parent.iterdir()} == {"report.html", "report.json"}
    with pytest.raises(MedCLIPADError, match="at least one case"):
        write_report(tmp_path, [], "Nothing")


def test_the_same_report_is_the_same_bytes(tmp_path):
    case = report_of(*make_case())
    a, b = (write_report(tmp_path / name, [case], "Title").read_bytes() for name in "ab")
    assert a == b


def pixels(path: Path) -> np.ndarray:
    return (imread(path)[..., :3] * 255).round().astype(int)


def test_picture_shows_the_map_above_the_threshold_and_the_truth(tmp_path):
    volume, result, truth = make_case()
    save_png(tmp_path / "map.png", volume, result)
    low = replace(result, anomaly_map=volume.with_array(result.anomaly_map.array * np.float32(0.5)))
    save_png(tmp_path / "below.png", volume, low)
    save_png(tmp_path / "truth.png", volume, low, truth=truth)

    def coloured(path: Path) -> np.ndarray:  # left of the legend
        picture = pixels(path)
        return np.ptp(picture[:, : int(0.92 * picture.shape[1])], axis=-1) > 40

    assert coloured(tmp_path / "map.png").sum() > 500
    assert coloured(tmp_path / "below.png").sum() == 0
    outlined = pixels(tmp_path / "truth.png")
    cyan = np.array([int(TRUTH_COLOUR[k : k + 2], 16) for k in (1, 3, 5)])
    near = np.abs(outlined - cyan).sum(axis=-1) < 90
    assert near[: near.shape[0] // 2].sum() < near[near.shape[0] // 2 :].sum() > 50


def test_key_slices():
    volume, result, truth = make_case()
    case = DrawnCase(volume, result, truth)
    slices = choose_key_slices(case)
    area = np.count_nonzero(truth.array, axis=(0, 1))
    assert slices == sorted(set(slices)) and 5 <= len(slices) <= 8
    assert int(np.argmax(area)) in slices
    assert sum(area[n] > 0 for n in slices) >= 3 and any(area[n] == 0 for n in slices)
    assert not np.isnan(result.slice_scores[slices]).any()
    assert len(choose_key_slices(case, 3)) == 3
    healthy = choose_key_slices(DrawnCase(*make_case(lesion=False)[:2]))
    assert 6 <= len(healthy) <= 8


def test_single_slice_blank_and_reformatted_volumes_can_be_drawn(tmp_path):
    single = make_case(shape=(30, 30, 1))
    write_report(tmp_path / "single", [report_of(*single)], "One slice")
    volume, result, _ = make_case()
    blank = AnomalyResult(
        volume.with_array(np.zeros(SHAPE, np.float32)), np.full(SHAPE[2], np.nan), np.zeros(SHAPE, bool),
        result.slicing, "test",
    )  # fmt: skip
    nothing = report_of(volume, blank, volume.with_array(np.zeros(SHAPE, np.uint8)))
    path = write_report(tmp_path / "blank", [nothing], "Nothing analysed")
    assert json.loads(path.with_name("report.json").read_text())["cases"][0]["volume_score"] is None
    for plane in ("coronal", "sagittal"):
        other = AnomalyResult(
            result.anomaly_map, np.zeros(len(Slicing(volume, plane))), result.foreground,
            Slicing(volume, plane), "test",
        )  # fmt: skip
        save_png(tmp_path / f"{plane}.png", volume, other)
        assert pixels(tmp_path / f"{plane}.png").std() > 10


def test_curve_marks_lesion_and_skipped_slices():
    svg = image_bytes(draw_scores(DrawnCase(*make_case()), [10, 12]), "svg").decode()
    legend = draw_scores(DrawnCase(*make_case()), [10]).axes[0].get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["slices with lesion", "skipped (background)", "anomaly score", "shown above", "slice limit"]
    assert svg.startswith("<?xml") and "<script" not in svg
