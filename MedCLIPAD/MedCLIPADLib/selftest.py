"""The checks of MedCLIPADTest: everything that needs no server.

Each takes the running unittest.TestCase.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import slicer

from MedCLIPADLib import navigation, overlay, volumes
from MedCLIPADLib.client import Client
from MedCLIPADLib.detection import Answer
from MedCLIPADLib.errors import ServerError
from MedCLIPADLib.grid import Slicing
from MedCLIPADLib.plots import store_scores
from MedCLIPADLib.regions import find_regions, store_regions, stored_regions
from MedCLIPADLib.results import REGIONS, VOLUME, Result
from MedCLIPADLib.segmentation import crop_regions, label_of, make_segmentation

_TILTED = np.array([[-1.9, 0.3, 0.1, 20.0], [0.3, 1.9, -0.4, -30.0], [-0.1, 0.3, 3.9, 5.0], [0, 0, 0, 1]])


def check_grid(test: Any) -> None:
    """Check that slices are numbered from inferior to superior."""
    for sign in (1, -1):
        affine = np.diag([1.0, 1.0, 3.0 * sign, 1.0])
        slicing = Slicing((4, 5, 6), affine, "axial")
        heights = [sign * 3.0 * slicing.index(number) for number in range(len(slicing))]
        test.assertEqual(heights, sorted(heights))


def check_result(test: Any) -> None:
    """Check a map's nodes, before and after saving the scene."""
    volume, result = _example()
    test.assertIs(result.volume, volume)
    store_scores(result)
    test.assertEqual(find_regions(result.array, result.slicing, result.threshold, 0.99), [])
    regions = find_regions(result.array, result.slicing, result.threshold, result.limit())
    test.assertEqual(len(regions), 1)
    test.assertEqual(result.in_words(regions[0].peak), "never seen in 24 normal scans")
    store_regions(result, regions)
    overlay.show(result, 0.6)
    navigation.jump(result, regions[0].ijk)
    node = make_segmentation(result, *crop_regions(result.array, result.threshold, result.limit()))
    test.assertEqual(int(label_of(node, result).sum()), int((result.array >= result.threshold).sum()))
    folder = Path(slicer.util.tempDirectory())
    slicer.util.saveScene(str(folder / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(folder / "scene.mrb"))
    loaded = Result.all()
    test.assertEqual(len(loaded), 1)
    loaded[0].restore_colours()
    test.assertIsNotNone(loaded[0].node.GetNodeReference(VOLUME))
    test.assertEqual([region.ijk for region in stored_regions(loaded[0]) or []], [region.ijk for region in regions])
    test.assertIsNotNone(loaded[0].reference(REGIONS))
    test.assertAlmostEqual(loaded[0].threshold, 0.5)
    test.assertTrue(loaded[0].verdict.endswith("not for diagnosis."))
    test.assertEqual(loaded[0].limit("0.5"), 0.8)


def check_errors(test: Any) -> None:
    """Check that a server that is not running is told apart from an invalid address."""
    for url, cause in (("http://127.0.0.1:9", "refused"), ("nonsense", "address")):
        with test.assertRaises(ServerError) as caught:
            Client(url).info()
        test.assertEqual(caught.exception.cause, cause)


def _example() -> tuple[Any, Result]:
    """Return a tilted volume and a map of it with one warm spot."""
    k, j, i = np.indices((10, 14, 12))
    warm = 0.95 * np.exp(-((i - 7.0) ** 2 + (j - 5.0) ** 2 + (k - 4.0) ** 2) / 8).astype(np.float32)
    image = volumes.new_image(warm)
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Self test")
    slicer.util.updateVolumeFromArray(volume, (warm * 500).astype(np.int16))
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(_TILTED))
    volume.CreateDefaultDisplayNodes()
    scores = {
        "method": "example",
        "detector": "self test",
        "plane": "axial",
        "threshold": 0.5,
        "volume_score": 0.9,
        "slice_scores": [float(layer.max()) for layer in warm],
        "p_value": 0.04,
        "normal_scans": 24,
        "verdict": "Unusual: higher than 24 of 24 normal scans (p = .04). Research software: not for diagnosis.",
        "warnings": [],
        "promise": "This rests on 24 normal scans: at most 1 false alarm in 25 can be promised.",
        "slice_limit": 0.6,
        "region_limits": {"0.5": 0.8, "1": 0.7},
        "false_regions_per_scan": 1.0,
        "scale_top": 0.9,
    }
    answer = Answer("example", "", "", scores, image, float(warm.max()), False)
    return volume, Result.create(volume, answer, _TILTED)
