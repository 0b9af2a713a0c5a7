"""Results under anomalib's names: always as plain tensors, and where anomalib is installed with its own code."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from medclipad.detection.result import AnomalyResult
from medclipad.errors import MedCLIPADError, VolumeError
from medclipad.export.anomalib import to_fields, to_image_batch
from medclipad.volume import Slicing, Volume

HAS_ANOMALIB = importlib.util.find_spec("anomalib") is not None
with_anomalib = pytest.mark.skipif(not HAS_ANOMALIB, reason="needs anomalib: docs/how-to/exchange.md says how")


@pytest.fixture(scope="module")
def result(head) -> AnomalyResult:
    """A result whose map is known: noise, and the blob above it; the first slice was skipped."""
    volume, healthy = head(0, True), head(0)
    noise = np.random.default_rng(0).uniform(0, 0.45, volume.shape)
    array = np.where(volume.array != healthy.array, 0.4 + noise, noise).astype(np.float32)
    slicing = Slicing(volume, "coronal")
    scores = slicing.slices(array).max(axis=(1, 2)).astype(np.float64)
    scores[0] = np.nan
    return AnomalyResult(volume.with_array(array), scores, volume.array > 0, slicing, "known")


def test_fields_are_those_of_the_analysed_slices(result, head, lesion) -> None:
    fields = to_fields(result, head(0, True), lesion)
    n, shape = len(result.slicing) - 1, result.slicing.shape
    assert {name: (tuple(field.shape), field.dtype) for name, field in fields.items()} == {
        "image": ((n, 3, *shape), torch.float32),
        "anomaly_map": ((n, *shape), torch.float32),
        "pred_score": ((n,), torch.float32),
        "pred_mask": ((n, *shape), torch.bool),
        "pred_label": ((n,), torch.bool),
        "gt_mask": ((n, *shape), torch.bool),
        "gt_label": ((n,), torch.bool),
    }
    slices = result.slicing.slices
    assert (fields["anomaly_map"].numpy() == slices(result.anomaly_map.array)[1:]).all()
    assert (fields["pred_mask"].numpy() == slices(result.segmentation().array)[1:].astype(bool)).all()
    assert (fields["gt_mask"].numpy() == slices(lesion.array)[1:].astype(bool)).all()
    assert (fields["pred_label"] == (fields["pred_score"] > result.slice_limit)).all()
    assert (fields["gt_label"] == fields["gt_mask"].flatten(1).any(1)).all() and 0 < fields["gt_label"].sum() < n
    assert fields["image"].min() == 0 and fields["image"].max() == 1


def test_without_a_mask_there_is_no_truth(result, head) -> None:
    assert not {"gt_mask", "gt_label"} & set(to_fields(result, head(0, True)))


def test_what_cannot_be_handed_over_is_said(result, head) -> None:
    other = Volume(np.zeros((4, 4, 4), np.float32), np.eye(4), name="other")
    with pytest.raises(VolumeError, match="other and head0 have different sizes"):
        to_fields(result, head(0, True), other)
    skipped = np.full(len(result.slicing), np.nan)
    nothing = AnomalyResult(result.anomaly_map, skipped, result.foreground, result.slicing, "none")
    with pytest.raises(MedCLIPADError, match="No slice of head0 was analysed"):
        to_fields(nothing, head(0, True))


@pytest.mark.skipif(HAS_ANOMALIB, reason="anomalib is installed")
def test_a_missing_anomalib_is_said(result, head) -> None:
    with pytest.raises(MedCLIPADError, match="anomalib is not installed: install it"):
        to_image_batch(result, head(0, True))


@with_anomalib
def test_anomalibs_metrics_say_what_ours_do(result, head, lesion) -> None:
    batch = to_image_batch(result, head(0, True), lesion)
    from anomalib.metrics import AUROC, Evaluator, F1Score
    from sklearn.metrics import f1_score, roc_auc_score

    metrics = {
        (cls.__name__, *fields): cls(fields=list(fields), prefix=fields[0])
        for cls, fields in (
            (AUROC, ("pred_score", "gt_label")),
            (AUROC, ("anomaly_map", "gt_mask")),
            (F1Score, ("pred_label", "gt_label")),
            (F1Score, ("pred_mask", "gt_mask")),
        )
    }
    evaluator = Evaluator(test_metrics=list(metrics.values()), compute_on_cpu=False)
    evaluator.on_test_batch_end(None, None, None, batch, 0)
    for (name, found, truth), metric in metrics.items():
        expected = {"AUROC": roc_auc_score, "F1Score": f1_score}[name](
            getattr(batch, truth).flatten().numpy(), getattr(batch, found).flatten().numpy()
        )
        assert float(metric.compute()) == pytest.approx(expected, abs=1e-5), (name, found)
    assert 0.9 < float(metrics["AUROC", "anomaly_map", "gt_mask"].compute()) < 1


@with_anomalib
def test_anomalibs_visualiser_draws_it(result, head, lesion) -> None:
    batch = to_image_batch(result, head(0, True), lesion)
    from anomalib.visualization import ImageVisualizer

    pictures = ImageVisualizer(field_size=(64, 64)).visualize(batch)
    assert len(pictures) == len(batch) == len(result.slicing) - 1
    assert all(np.asarray(picture).std() > 0 for picture in pictures)
