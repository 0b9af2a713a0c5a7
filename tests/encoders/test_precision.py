"""bfloat16 compared with float32, weights that are read one by one, and a text tower that is read when needed."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from test_encoders import ARCHITECTURE, make_images, weights  # noqa: F401  (fixture)

from medclipad.detection.detector import load_detector
from medclipad.detection.fit import fit
from medclipad.encoders import load_encoder
from medclipad.encoders.openclip.blocks import scaled_dot_product
from medclipad.encoders.openclip.network import ClipEncoder
from medclipad.encoders.openclip.torch_archive import StoredTensor
from medclipad.encoders.precision import resolve_precision
from medclipad.errors import DetectorError

CPU = torch.device("cpu")


@pytest.fixture
def name(weights, tmp_path) -> str:  # noqa: F811
    torch.save(weights, tmp_path / "weights.pt")
    return f"{ARCHITECTURE}/{tmp_path / 'weights.pt'}"


def test_auto_is_bfloat16_where_the_processor_multiplies_it(monkeypatch):
    capabilities = torch.cpu.get_capabilities()
    expected = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    assert resolve_precision("auto", CPU) == (torch.bfloat16 if expected else torch.float32)
    for able in ({}, {"avx512_bf16": False}, {"avx512_bf16": True}, {"amx_bf16": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert resolve_precision("auto", CPU) == (torch.bfloat16 if any(able.values()) else torch.float32)
    assert load_encoder("embedded", 64, CPU, precision="auto").dtype == torch.float32
    with pytest.raises(DetectorError, match="not known: give auto, float32 or bfloat16"):
        resolve_precision("half", CPU)


def test_bfloat16_is_near_float32(name):
    exact, half = (load_encoder(name, None, CPU, precision=precision) for precision in ("float32", "bfloat16"))
    assert exact is not half and half is load_encoder(name, None, CPU, precision="bfloat16")
    assert {value.dtype for value in half.state_dict().values()} == {torch.bfloat16}
    for ours, theirs in zip(half.taps(make_images(half)), exact.taps(make_images(exact)), strict=True):
        assert ours.dtype == torch.bfloat16
        error = (ours.float() - theirs).abs().max() / theirs.abs().max()
        assert 0 < error < 0.03
    tokens = exact.text.tokenize(["a brain", "a photo of a damaged brain."])
    ours, theirs = (
        encoder.text.encode(encoder.text.token_embedding(tokens), tokens.argmax(dim=1), causal=True)
        for encoder in (half, exact)
    )
    assert ours.dtype == torch.float32 and 0 < (ours - theirs).abs().max() / theirs.abs().max() < 0.03


@pytest.mark.parametrize("method", ["mediclip", "mvfa"])
def test_detectors_agree_in_both_precisions(method, name, head, tmp_path):
    mask = head(0).with_array(head(0, blob=True).array - head(0).array > 100)
    options = {"max_steps": 4} if method == "mediclip" else {"max_samples": 16, "memory_tokens": 500}
    abnormal = [(head(0, blob=True), mask)] if method == "mvfa" else []
    made = fit(
        method=method,
        encoder=name,
        normal=[head(0)],
        abnormal=abnormal,
        shots=4,
        image_size=56,
        precision="float32",
        **options,
    )
    made.save(tmp_path / "detector")
    results = [
        load_detector(tmp_path / "detector", precision).detect(head(1, blob=True))
        for precision in ("float32", "bfloat16")
    ]
    exact, half = (result.anomaly_map.array[result.anomaly_map.array > 0] for result in results)
    maps = [result.anomaly_map.array for result in results]
    assert not np.array_equal(*maps)
    assert len(half) == len(exact) and spearmanr(exact, half)[0] > 0.99
    assert np.abs(maps[0] - maps[1]).max() < 0.1 * np.ptp(exact)


def test_training_in_bfloat16_learns_as_in_float32(name, head):
    mask = head(0).with_array(head(0, blob=True).array - head(0).array > 100)
    losses = [
        fit(method="mvfa", encoder=name, normal=[head(0)], abnormal=[(head(0, blob=True), mask)], shots=4,
            planes="axial", image_size=56, precision=precision, max_samples=64, memory_tokens=500).info.metrics["loss"]
        for precision in ("float32", "bfloat16")
    ]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0] != losses[1]


def test_only_what_computes_is_read(name, monkeypatch):
    read, original = [], StoredTensor.read
    monkeypatch.setattr(StoredTensor, "read", lambda self: read.append(self.record.filename) or original(self))
    encoder = ClipEncoder(name)
    vision = len(encoder.state_dict())
    assert len(read) == vision, "no tensor of the text tower"
    encoder.text.tokenize(["a brain"])
    assert len(read) == vision
    encoder.text.token_embedding(torch.zeros(1, 77, dtype=torch.int64))
    assert len(read) > vision and len(set(read)) == len(read), "each once"


@pytest.mark.parametrize("method", ["mediclip", "mvfa"])
def test_a_finished_detector_needs_no_text_tower(method, name, head, tmp_path, monkeypatch):
    mask = head(0).with_array(head(0, blob=True).array - head(0).array > 100)
    options = {"max_steps": 2} if method == "mediclip" else {"max_samples": 16, "memory_tokens": 500}
    abnormal = [(head(0, blob=True), mask)] if method == "mvfa" else []
    made = fit(
        method=method,
        encoder=name,
        normal=[head(0)],
        abnormal=abnormal,
        shots=4,
        image_size=56,
        precision="float32",
        **options,
    )
    expected = made.detect(head(1)).anomaly_map.array
    made.save(tmp_path / "detector")
    del made
    gc.collect()  # or the encoder, its text tower loaded, would be shared with the detector
    monkeypatch.setattr("medclipad.encoders.openclip.text._IN_CLIP", ("none of this name",))
    detector = load_detector(tmp_path / "detector", "float32")
    assert np.array_equal(detector.detect(head(1)).anomaly_map.array, expected)
    assert "_model" not in vars(detector.model.encoder.text)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_attention(dtype):
    """Attention and its gradients equal float32's, apart from bfloat16's rounding, whichever way they are computed."""
    torch.manual_seed(0)
    heads, by = torch.randn(3, 2, 4, 30, 16), torch.randn(2, 4, 30, 16)
    results = {}
    for name, attention, attention_dtype in (
        ("exact", torch.nn.functional.scaled_dot_product_attention, torch.float64),
        ("ours", lambda q, k, v: scaled_dot_product(q, k, v, None, False), dtype),
    ):
        given = heads.to(attention_dtype).requires_grad_()
        mixed = attention(*given)
        (mixed * by.to(attention_dtype)).sum().backward()
        results[name] = mixed.detach().double(), given.grad.double()
    for ours, exact in zip(results["ours"], results["exact"], strict=True):
        error = (ours - exact).norm() / exact.norm()
        assert error < (1e-6 if dtype == torch.float32 else 1e-2)
