"""Steps in the panel that many tests share: connect, detect, read the views."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest
from served import add_volume, grid, head

AFFINE = grid((4, -6, 8))
_SEEDS = count(500)


@pytest.fixture
def panel(medclipad: Any, study: Any) -> Any:
    """The module's widget, connected with two clicks."""
    from harness import user

    user.write(medclipad.ui.urlLineEdit, study.url)
    user.click(medclipad.ui.connectButton)
    user.wait_until(lambda: medclipad.logic.session.connected, 30, "connect")
    return medclipad


@pytest.fixture
def detected(panel: Any) -> Any:
    """The panel after Detect on a tilted head with a lesion; `panel.mask` is the lesion."""
    array, panel.mask = head(AFFINE, seed=next(_SEEDS))  # new to the server: no marks of another test
    volume = add_volume("Patient", array, AFFINE)
    detect(panel, volume)
    return panel


def detect(panel: Any, volume: Any) -> Any:
    from harness import user

    before = len(results())
    user.choose(panel.ui.inputSelector, volume.GetName())
    user.click(panel.ui.detectButton)
    user.wait_until(lambda: (len(results()) > before and shown(panel)) or panel.ui.messageLabel.text, 90, "detect")
    assert not panel.ui.messageLabel.text, panel.ui.messageLabel.text
    return panel.results.result


def shown(panel: Any) -> bool:
    """Return whether the last analysis is shown in the panel and the views, with its plot."""
    from MedCLIPADLib.results import CHART

    result = panel.results.result
    plotted = result is not None and result.reference(CHART) is not None
    return plotted and not panel.detect.running and not panel.logic.session.jobs.active("Detect")


def results() -> list:
    from MedCLIPADLib.results import Result

    return Result.all()


def view(name: str = "Red") -> Any:
    import slicer

    return slicer.app.layoutManager().sliceWidget(name)


def coloured(name: str = "Red") -> np.ndarray:
    """Return which pixels of a view are not grey, without its border of legend and annotations."""
    pixels = view(name).sliceView().pixels(300, 300).astype(int)
    return (np.ptp(pixels, axis=-1) > 40)[20:-20, 20:-70]
