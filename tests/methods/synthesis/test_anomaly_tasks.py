"""Each synthesis task: what it changes, what it labels, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter

from medclipad.errors import TrainingError
from medclipad.methods.mediclip.synthesis import MINIMUM_SIZE, CutPaste, GaussIntensityChange, Identity, Source
from medclipad.methods.mediclip.synthesis.cutpaste import cut
from medclipad.methods.mediclip.synthesis.perlin import perlin_noise, perlin_region
from medclipad.methods.mediclip.synthesis.source import deformed_shape
from medclipad.methods.mediclip.synthesis.task import Region

SIZES = (MINIMUM_SIZE, 33, 101, 224)
TASKS = {
    "cutpaste": lambda support: CutPaste(support),
    "cutpaste, paper": lambda support: CutPaste(support, "paper"),
    "gauss": lambda support: GaussIntensityChange(),
    "source": lambda support: Source(),
    "source, paper": lambda support: Source("paper"),
}


def images_of(size: int, count: int = 3) -> np.ndarray:
    """Return smooth images uint8 (count, size, size) without a constant area."""
    noise = np.random.default_rng(size).normal(size=(count, size, size))
    smooth = gaussian_filter(noise, (0, size / 30, size / 30))
    return np.clip(110 + 45 * smooth / smooth.std(), 0, 255).astype(np.uint8)


class BoundsRecorder(np.random.Generator):
    """Generator that records the bounds of the uniform numbers that it draws."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64(seed))
        self.bounds = []

    def uniform(self, low, high):
        self.bounds.append((low, high))
        return super().uniform(low, high)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TASKS)
def test_changes_are_labelled_and_nothing_else_changes(name, size):
    images = images_of(size)
    task, labelled = TASKS[name](images), 0
    for seed in range(60):
        image = images[seed % len(images)]
        before = image.copy()
        result, label = task(image, np.random.default_rng(seed))
        assert (image == before).all()
        assert (result.dtype, label.dtype) == (np.uint8, np.float64)
        assert result.shape == label.shape == image.shape
        assert label.min() >= 0 and label.max() <= 1
        assert (result == image)[label == 0].all()
        labelled += (result != image).any()
    # Blending leaves 3 pixels of a region's rim unchanged: a small region has no others.
    assert labelled > (5 if name == "cutpaste, paper" and size < 64 else 50)


@pytest.mark.parametrize("name", TASKS)
def test_equal_seeds_give_equal_anomalies(name):
    images = images_of(101)
    task = TASKS[name](images)
    first, again, other = (task(images[0], np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[0] != other[0]).any()


@pytest.mark.parametrize("name", TASKS)
def test_one_or_two_regions(name):
    images = images_of(101)
    task, counts = TASKS[name](images), []
    alter = task.alter
    for seed in range(200):
        calls = []
        task.alter = lambda *args, calls=calls: calls.append(1) or alter(*args)
        task(images[0], np.random.default_rng(seed))
        counts.append(len(calls))
    assert set(counts) == {1, 2}
    assert 70 < counts.count(2) < 130


@pytest.mark.parametrize(
    ("task", "bounds"), [(CutPaste, (22, 134)), (GaussIntensityChange, (67, 179)), (Source, (45, 134))]
)
def test_regions_scale_with_the_image(task, bounds):
    task = task(images_of(224)) if task is CutPaste else task()
    assert task.bounds(224) == bounds
    for size in SIZES:
        assert task.bounds(size) == pytest.approx([size * bound / 224 for bound in bounds], abs=0.6)
        rng = np.random.default_rng(size)
        shapes = np.array([task.region(size, rng).mask.shape for _ in range(50)])
        assert shapes.max() <= min(task.bounds(size)[1] + 2, size)
        assert shapes.max() > np.mean(task.bounds(size))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 65), np.uint8),
        np.zeros((64, 64), np.float32),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((MINIMUM_SIZE - 1, MINIMUM_SIZE - 1), np.uint8),
    ],
    ids=["oblong", "float", "colour", "tiny"],
)
def test_images_refused(image):
    for task in (GaussIntensityChange(), Source(), Identity()):
        with pytest.raises(TrainingError, match="square uint8 images of at least 32 pixels"):
            task(image, np.random.default_rng(0))
    with pytest.raises(TrainingError, match="square uint8 images of at least 32 pixels"):
        CutPaste([image])


def test_a_constant_image():
    image = np.full((64, 64), 80, np.uint8)
    for seed in range(20):
        for task in (CutPaste([image]), CutPaste([image], "paper")):
            result, label = task(image, np.random.default_rng(seed))
            assert (result == image).all() and not label.any()
        result, label = Source()(image, np.random.default_rng(seed))
        assert (result == image).all() and label.any()
        result, label = GaussIntensityChange()(image, np.random.default_rng(seed))
        assert (result != image).any() and label.any()


def test_identity():
    image = images_of(64)[0]
    result, label = Identity()(image, np.random.default_rng(0))
    assert (result == image).all() and result is not image
    assert label.dtype == np.float64 and label.shape == image.shape and not label.any()


def test_perlin_noise_is_zero_in_the_lattice_point_and_smooth():
    noise = perlin_noise((90, 120), np.random.default_rng(0).random((2, 2)))
    assert noise.shape == (90, 120)
    assert noise[0, 0] == pytest.approx(0, abs=1e-12)
    assert np.ptp(noise) > 0.1 and abs(noise).max() <= 1
    assert max(abs(np.diff(noise, axis=axis)).max() for axis in (0, 1)) < 0.05


def test_perlin_regions_fill_enough_of_their_box():
    rng = np.random.default_rng(0)
    areas = [perlin_region((10, 40), rng).mask.mean() for _ in range(200)]
    assert 0.2 <= min(areas) < 0.25 and max(areas) > 0.5


def test_cuts_stay_within_the_values_of_their_source():
    rng = np.random.default_rng(0)
    board = np.where(np.indices((128, 128)).sum(axis=0) // 8 % 2, 200, 50).astype(np.uint8)
    patches = [cut(board, (60, 40), rng) for _ in range(20)]
    assert {patch.shape for patch in patches} == {(60, 40)}
    assert min(patch.min() for patch in patches) == 50 and max(patch.max() for patch in patches) == 200


def test_large_cuts_are_scaled_to_fit_their_source():
    class FarZoom(np.random.Generator):
        def exponential(self, scale):
            return 9.0

    cuts = [cut(images_of(101)[0], (60, 60), FarZoom(np.random.PCG64(seed))) for seed in range(20)]
    assert {patch.shape for patch in cuts} == {(60, 60)}


def test_cutpaste_label():
    task = CutPaste(images_of(64))
    image = np.full((64, 64), 100, np.uint8)
    altered = np.zeros((64, 64), bool)
    altered[10:30, 10:30] = altered[40:50, 40:50] = True
    result = np.where(altered, 140, image).astype(np.uint8)
    result[18:23, 18:23] = 100  # a hole, too wide for the closing
    result[10:15, 20] = 100  # a slit, open to the outside
    result[40:50, 40:50] = 101
    result[45:50, 40:50] = 99
    result[60, 60] = 0  # not among the altered pixels
    label = task.label(result, image, altered)
    assert (label[10:30, 10:30] == 1).all()
    assert label[40:45, 40:50] == pytest.approx(1 - math.exp(-12.5), abs=1e-15)
    assert (label[45:50, 40:50] == 1).all()  # as in the reference: -1 wraps around to 255
    assert not label[~altered].any()


def test_cutpaste_hard_and_blended():
    image = np.full((96, 96), 100, np.uint8)
    bright = np.full((96, 96), 200, np.uint8)
    for seed in range(20):
        result, label = CutPaste([bright])(image, np.random.default_rng(seed))
        assert set(np.unique(result)) == {100, 200} and (label[result == 200] == 1).all()
        # A patch without gradients leaves nothing behind when only its gradients are kept.
        result, _ = CutPaste([bright], "paper")(image, np.random.default_rng(seed))
        assert (result == image).all()


def test_blended_patches_have_their_source_s_texture_and_no_seam():
    images = images_of(224)
    dark, bright = images[0] // 2 + 30, images[1] // 2 + 90  # off 0 and 255, where a blend is cut off
    seams = {"reference": [], "paper": []}
    textures = []
    for seed in range(15):
        hard, label = CutPaste([bright])(dark, np.random.default_rng(seed))
        blended, _ = CutPaste([bright], "paper")(dark, np.random.default_rng(seed))
        area = label > 0.5
        rim = area & ~binary_erosion(area)
        inside = binary_erosion(area, iterations=8)
        for name, result in (("reference", hard), ("paper", blended)):
            seams[name].append(np.hypot(*np.gradient(result.astype(float)))[rim].mean())
        if inside.sum() > 50:
            slopes = (np.gradient(result.astype(float))[0][inside] for result in (hard, blended))
            textures.append(np.corrcoef(*slopes)[0, 1])
    assert np.mean(seams["paper"]) < 0.3 * np.mean(seams["reference"])
    assert len(textures) > 5 and np.mean(textures) > 0.8


def test_blending_at_the_image_s_border_is_aligned():
    image = images_of(96)[0]
    for height in range(5, 40):
        region = Region(np.ones((height, 30 + height % 7), bool))
        window = slice(0, height), slice(96 - region.mask.shape[1], 96)
        result, _ = CutPaste([image], "paper").alter(image, window, region, SameCut(window))
        assert (result == image[window]).all()


class SameCut:
    """Generator whose draws cut the window's own content out of the image."""

    def __init__(self, window: tuple[slice, slice]) -> None:
        self.corner = [side.start for side in window]

    def integers(self, low, high=None, endpoint=False):
        return 0 if high is None else self.corner

    def uniform(self, low, high):
        return 0.0

    def exponential(self, scale):
        return 0.0

    def choice(self, options):
        return options[0]


def test_cutpaste_support_refused():
    for support, message in (
        ([], "at least one"),
        ([np.zeros((64, 64), np.uint8), np.zeros((65, 65), np.uint8)], "of one size"),
    ):
        with pytest.raises(TrainingError, match=message):
            CutPaste(support)
    with pytest.raises(TrainingError, match="bring them to the same size"):
        CutPaste(images_of(64))(images_of(101)[0], np.random.default_rng(0))
    for task in (lambda: CutPaste(images_of(64), "papers"), lambda: Source("papers")):
        with pytest.raises(TrainingError, match="'papers'"):
            task()


def test_gauss_regions_get_brighter_or_darker():
    image, signs = np.full((96, 96), 128, np.uint8), set()
    for seed in range(30):
        task = GaussIntensityChange()
        rng = np.random.default_rng(seed)
        region = task.region(96, rng)
        window = slice(0, region.mask.shape[0]), slice(0, region.mask.shape[1])
        patch, changed = task.alter(image.astype(np.float64), window, region, rng)
        change = (patch - 128)[region.mask]
        assert (changed == region.mask).all() and (patch == 128)[~region.mask].all()
        assert (change >= 0).all() or (change <= 0).all()
        assert 0.1 * 255 < abs(change).max() <= 0.6 * 255
        signs.add(np.sign(change.sum()))
    assert signs == {-1, 1}


def test_gauss_stays_within_the_grey_scale():
    for value in (0, 255):
        image = np.full((64, 64), value, np.uint8)
        results = [GaussIntensityChange()(image, np.random.default_rng(seed))[0].astype(int) for seed in range(20)]
        assert {int(np.sign((result - image).sum())) for result in results} == {0, 1 if value == 0 else -1}


def test_deformed_shapes():
    rng = np.random.default_rng(0)
    shapes = [deformed_shape(224, (45, 134), rng) for _ in range(200)]
    assert 70 < sum(shape.ellipse for shape in shapes) < 130
    for shape in shapes:
        assert (shape.mask == shape.mask[::-1, ::-1]).all() and shape.mask.any()
        points = np.stack(np.nonzero(shape.mask))
        centre = points[:, rng.integers(points.shape[1])]
        radius = shape.radius(points, centre)
        assert radius.min() == 0 and radius.max() <= 1 + 1e-9
        beyond = np.indices(shape.mask.shape)[:, ~shape.mask]
        assert beyond.size == 0 or shape.radius(beyond, centre).min() > 1


def test_source_pushes_the_image_outwards():
    image = np.zeros((128, 128), np.uint8)
    image[60:69, 60:69] = 200
    grown = 0
    for seed in range(40):
        rng = FromTheMiddle(np.random.PCG64(seed))
        region = Source().region(128, rng)
        rng.middle = region.mask.sum() // 2
        window = tuple(slice(64 - side // 2, 64 + side // 2 + 1) for side in region.mask.shape)
        patch, changed = Source().alter(image, window, region, rng)
        assert (changed == region.mask).all() and (patch == image[window])[~region.mask].all()
        grown += (patch > 100).sum() > 1.5 * (image[window] > 100).sum()
    assert grown > 35


class FromTheMiddle(np.random.Generator):
    """Generator that returns `middle` for every integer, once it is set."""

    middle = None

    def integers(self, *args, **kwargs):
        return super().integers(*args, **kwargs) if self.middle is None else self.middle


@pytest.mark.parametrize(("variant", "bounds"), [("reference", (0.5, 2)), ("paper", (math.sqrt(2), 4))])
def test_source_draws_its_strength_as_the_variant_says(variant, bounds):
    rng = BoundsRecorder(0)
    Source(variant)(images_of(64)[0], rng)
    assert set(rng.bounds) == {(-math.pi / 2, math.pi / 2), bounds}
