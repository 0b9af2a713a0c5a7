"""MONAI Label's strategies of active learning."""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from medclipad.server.next_sample import NextSample


class ScoredStrategy(Strategy):
    """Strategy that chooses the image to label next from the available scores; see `NextSample`.

    Parameters
    ----------
    strategy
        Makes the choice.
    """

    def __init__(self, strategy: NextSample) -> None:
        super().__init__(strategy.description)
        self._strategy = strategy

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return the image to label next; None when all images have a label."""
        return self._strategy(request, datastore)
