"""Example pictures of a run: test pictures with their maps as an overlay and the lesions outlined."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medclipad.detection.result import AnomalyResult
from medclipad.errors import TrainingError
from medclipad.evaluation.drawing import draw_slices, image_bytes
from medclipad.evaluation.drawn_case import DrawnCase
from medclipad.evaluation.protocols.run import Outcome
from medclipad.methods.common.benchmark import BenchmarkProtocol
from medclipad.volume import Slicing, Volume

TRANSPARENT = 0.95  # share of the drawn maps' pixels that stays transparent


def save_examples(file: Path, protocol: BenchmarkProtocol, outcome: Outcome) -> None:
    """Draw the examples of a run as a PNG, normal pictures first; results.json has their names.

    Parameters
    ----------
    file
        PNG file to write.
    protocol
        The experiment.
    outcome
        Its result, which holds the maps of the examples.

    Raises
    ------
    TrainingError
        If the file cannot be written.
    """
    chosen = outcome.examples
    grey = protocol.tests[chosen].mean(dim=1).numpy()
    maps = np.stack([outcome.scores.maps[index] for index in chosen]).astype(np.float32)
    # `draw_slices` draws volumes: here each "slice" is a picture.
    shape = grey.shape[::-1]
    slicing = Slicing(Volume(np.zeros(shape, np.float32), np.eye(4)), "axial")
    volume = Volume(slicing.stack(grey), np.eye(4), name=protocol.settings.class_name)
    result = AnomalyResult(
        anomaly_map=volume.with_array(slicing.stack(maps)),
        slice_scores=outcome.scores.images[chosen],
        foreground=np.ones(shape, bool),
        threshold=float(np.quantile(maps, TRANSPARENT)),
        slicing=slicing,
        detector=protocol.name,
        window=(0.0, 1.0),
    )
    truth = None
    if protocol.truth is not None:
        truth = volume.with_array(slicing.stack(protocol.truth[chosen].astype(np.uint8)))
    normal = int((protocol.tests.labels[chosen] == 0).sum())
    counts = f"{normal} normal and {len(chosen) - normal} abnormal pictures"
    title = f"{protocol.name}, {protocol.settings.class_name}: {counts}"
    figure = draw_slices(DrawnCase(volume, result, truth), range(len(chosen)), title)
    try:
        file.write_bytes(image_bytes(figure, "png"))
    except OSError as error:
        raise TrainingError(f"{file} cannot be written ({error.strerror}): give another --out.") from error
