"""The memory of normal tokens, by itself: distances, places, heights, its coreset and its scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medclipad.methods.common.coreset import coreset, farthest_points
from medclipad.methods.common.normal_memory import NormalMemory


def test_distance_is_that_to_the_nearest_token(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    memory = NormalMemory((2, 3), 40)
    kept = torch.randn(10, 2, 2, 8, generator=generator).half().float()
    kept[..., -1].abs_()  # brightness
    memory.remember(kept, generator)
    kept = kept.flatten(0, 2)
    assert {tuple(row) for row in memory.tokens.tolist()} == {tuple(row) for row in kept.tolist()}, "all fit in"
    queries = torch.randn(2, 7, 7, 8, generator=generator)
    expected = torch.cdist(queries.flatten(0, 2), kept).amin(dim=1).view(2, 7, 7)
    torch.testing.assert_close(memory.distance(queries), expected, atol=1e-4, rtol=0)
    monkeypatch.setattr("medclipad.methods.common.token_memory.BLOCK", (13, 7))
    torch.testing.assert_close(memory.distance(queries), expected, atol=1e-4, rtol=0)
    assert memory.distance(kept[:3]).max() < 1e-2


def test_tokens_are_drawn_where_there_are_more_and_black_is_not_remembered():
    tokens = torch.arange(1.0, 101).view(20, 1, 1, 5)
    few, all_of_them = NormalMemory((1, 1), 5), NormalMemory((1, 1), 50)
    for memory in (few, all_of_them):
        memory.remember(torch.cat([tokens, torch.zeros(2, 1, 1, 5)]), torch.Generator().manual_seed(0))
    assert len(few.tokens) == 5 and len(all_of_them.tokens) == 20
    assert (few.tokens[:, -1] > 0).all() and (all_of_them.tokens[:, -1] > 0).all()


@pytest.mark.parametrize("sizes", [[1] * 12, [5, 7], [4, 4, 4]])
@pytest.mark.parametrize("size", [1, 40, 1000])
def test_tokens_that_come_part_by_part_make_the_same_memory(sizes, size):
    """As all at once: the tokens drawn, their places, what is left out for a volume, and the scale."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(12, 3, 4, 4, generator=generator), torch.rand(12, 5, 2, 2, generator=generator)]
    images = torch.rand(12, 32, 32, generator=generator)
    images[3], images[:, :16, :9] = 0, 0  # black
    tokens = NormalMemory.join(maps, images)
    known = {"volumes": torch.arange(12) // 3, "heights": torch.rand(12, generator=generator)}
    whole, merged = NormalMemory((3, 5), size), NormalMemory((3, 5), size)
    whole.remember(tokens, torch.Generator().manual_seed(1), **known)
    body = NormalMemory.shows_body(images, 4)
    assert body.any() and not body.all()
    merged.remember_parts(iter(tokens.split(sizes)), body, torch.Generator().manual_seed(1), **known)
    assert len(merged.tokens) == min(size, int(body.sum()))
    for name in ("tokens", "places", "scale"):
        assert torch.equal(getattr(merged, name), getattr(whole, name)), name
    for volume in (None, 2):
        whole.leave_out(volume)
        merged.leave_out(volume)
        assert torch.equal(*(memory.distance(tokens, known["heights"]) for memory in (whole, merged)))


def test_every_token_is_drawn_as_often_as_any_other():
    """Of tokens that come in parts of unequal size; the chance that one seed in 300 is this uneven is below 1e-6."""
    tokens = torch.arange(1.0, 31).view(30, 1, 1, 1).expand(30, 1, 1, 5)
    counts = torch.zeros(31)
    for seed in range(300):
        memory = NormalMemory((1, 1), 10)
        memory.remember_parts(tokens.split([2, 28]), tokens[..., -1] > 0, torch.Generator().manual_seed(seed))
        counts[memory.tokens[:, 0].long()] += 1
    assert (counts[1:] - 100).abs().max() < 45, "each is expected 100 times, with a standard deviation of 8"


def test_slices_are_compared_with_those_of_about_their_height(monkeypatch):
    """The same token is usual at one height and not at another, however many there are."""
    monkeypatch.setattr("medclipad.methods.common.normal_memory.LEAST_TOKENS", 1)
    memory, heights = NormalMemory((1, 1), 100), torch.tensor([0.1, 0.5, 0.9])
    tokens = torch.tensor([1.0, 5, 9]).view(3, 1, 1, 1).expand(3, 2, 2, 5)
    memory.remember(tokens, torch.Generator().manual_seed(0), heights=heights)
    assert memory.places[:, 0].tolist() == sorted(memory.places[:, 0].tolist())
    torch.testing.assert_close(memory.distance(tokens, heights), torch.zeros(3, 2, 2), atol=2e-3, rtol=0)
    assert (memory.distance(tokens, heights.flip(0))[::2] > 8).all(), "5 dimensions, 8 apart"
    torch.testing.assert_close(memory.distance(tokens), torch.zeros(3, 2, 2), atol=2e-3, rtol=0)
    between = memory.distance(tokens[1:2], torch.tensor([0.3]))
    assert torch.isfinite(between).all(), "where nothing is near, the nearest heights are compared"


def test_the_place_in_a_slice_counts_beside_what_is_seen():
    memory = NormalMemory((1, 1), 100)
    tokens = torch.ones(1, 8, 8, 5)
    tokens[:, :, 4:] = 2
    memory.remember(tokens, torch.Generator().manual_seed(0), heights=torch.tensor([0.5]))
    mirrored = memory.distance(tokens.flip(2), torch.tensor([0.5]))
    assert (mirrored > 0.1).all() and memory.distance(tokens.flip(2)).max() < 0.01


def test_tokens_keep_direction_length_and_brightness():
    """Features twice as long change the token by the logarithm of 2 alone, brightness by its weight."""
    maps = [torch.rand(1, 3, 4, 4) + 0.1, torch.rand(1, 5, 2, 2) + 0.1]
    images = torch.full((1, 32, 32), 0.25)
    plain, strong = (NormalMemory.join([maps[0] * factor, maps[1]], images) for factor in (1, 2))
    assert plain.shape == (1, 4, 4, 3 + 1 + 5 + 1 + 1)
    torch.testing.assert_close(plain[..., :3].norm(dim=-1), torch.ones(1, 4, 4))
    expected = torch.zeros_like(plain)
    expected[..., 3] = 0.3 * np.log(2)
    torch.testing.assert_close(strong - plain, expected, atol=1e-5, rtol=0)
    brighter = NormalMemory.join(maps, images * 2) - plain
    torch.testing.assert_close(brighter[..., -1], torch.full((1, 4, 4), 2 * 0.25))
    assert not brighter[..., :-1].any()


def test_coreset_reaches_rare_points():
    generator = torch.Generator().manual_seed(0)
    crowd = torch.randn(500, 4, generator=generator) * 0.01
    rare = torch.eye(4) * 10
    chosen, distances = farthest_points(torch.cat([crowd, rare]), 6)
    assert torch.isinf(distances[0]) and (distances[1:5] > 9).all() and distances[5] < 0.1
    assert set(range(500, 504)) <= set(chosen.tolist()) and len(set(chosen.tolist())) == 6


def test_coreset_of_many_chunks(monkeypatch):
    """Chosen in chunks first: still reaches the rare points, and no point twice."""
    monkeypatch.setattr("medclipad.methods.common.coreset.CHUNK", 60)
    generator = torch.Generator().manual_seed(0)
    points = torch.cat([torch.randn(500, 4, generator=generator) * 0.01, torch.eye(4) * 10])
    for n in (30, 100, len(points)):
        chosen = coreset(points, n, generator)
        assert len(set(chosen.tolist())) == n and set(range(500, 504)) <= set(chosen.tolist())


def test_calibration_puts_normal_tokens_below_one_half():
    memory = NormalMemory((1, 1), 5)
    memory.scale.zero_()
    memory.calibrate(torch.arange(1001.0))
    assert memory.scale.item() == pytest.approx(999)
    memory.calibrate(torch.zeros(10))
    assert memory.scale.item() == pytest.approx(999), "remembered slices have no distance to the memory"


def test_shots_are_compared_with_each_other():
    """Two slices, each with one token: the scale is their distance, although the memory holds both."""
    memory = NormalMemory((1, 1), 8)
    tokens = torch.stack([torch.ones(2, 2, 5), torch.full((2, 2, 5), 4.0)])
    memory.remember(tokens, torch.Generator().manual_seed(0))
    assert memory.scale.item() == pytest.approx(3 * 5**0.5)
    memory.calibrate(memory.distance(tokens))
    assert memory.scale.item() == pytest.approx(3 * 5**0.5)
    memory.remember(tokens[1:], torch.Generator().manual_seed(0))
    assert memory.scale > 0, "a single slice cannot be compared"
