"""Active learning over HTTP: which image to label next, and which of its slices to look at first."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from monailabel.interfaces.datastore import Datastore

from medclipad.active_learning import STRATEGIES, Candidate, rank, rank_slices
from medclipad.server.errors import RequestError
from medclipad.server.inference.scoring import Scorer
from medclipad.server.stores.image_state import image_state
from medclipad.server.stores.study_files import is_text


class NextSample:
    """One strategy of `medclipad.active_learning`, applied to the scores that are available.

    It never waits for scores: images without them come after those with them, least recently offered first. Only the
    file of the image that is chosen is looked at: until the background scoring gets to it, an image that was replaced
    counts with its earlier scores, but is not offered with them.

    Parameters
    ----------
    name
        Name of the strategy.
    scorer
        The background scoring.
    default_method
        Called for the method whose scores count where a request names none.

    Attributes
    ----------
    description
        What the strategy prefers.
    """

    def __init__(self, name: str, scorer: Scorer, default_method: Callable[[], str | None]) -> None:
        self.description = STRATEGIES[name]
        self._name, self._scorer, self._default_method = name, scorer, default_method

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose the image to label next.

        Parameters
        ----------
        request
            May hold "method", whose scores count, "seed", and MONAI Label's "label_tag" and "labels".
        datastore
            The studies.

        Returns
        -------
        dict or None
            "id" of the image, its "weight", "score", "slices" to look at first, the "reason" in words, and the numbers
            of "scored" and "unlabelled" images; None when all images have a label.
        """
        unlabelled = sorted(datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels")))
        if not unlabelled:
            return None
        method, seed = request.get("method") or self._default_method(), request.get("seed")
        scored = self._scorer.candidates(method, unlabelled) if method else {}
        if method and self._name != "random":
            self._scorer.request_scoring(method, datastore)
        labelled: list[Candidate] = []
        best = None
        if method and scored and self._name != "random":
            others = self._scorer.candidates(method, datastore.get_labeled_images())
            labelled = [candidate for _, candidate in others.values()]
            best = self._best(scored, labelled, seed, datastore)
        if best is None:
            oldest, waited = _least_recently_offered(unlabelled, self._name, datastore)
            image = random.Random(seed).choice(oldest)
            state, candidate = scored.get(image, (None, None))
            candidate = candidate if image_state(datastore, image) == state else None
            score, labelled = None, []
            reason = "Any unlabelled image, least recently offered first."
            if self._name != "random":
                reason = f"No image is scored by {method or 'any method'} yet: {reason[0].lower()}{reason[1:]}"
        else:
            candidate, score = best
            image, waited = candidate.name, 0
            reason = (
                f"{STRATEGIES[self._name]}, of {len(scored)} scored images among {len(unlabelled)} unlabelled ones."
            )
        return {
            "id": image,
            "weight": waited if score is None else score,
            "score": score,
            "slices": self._slices(candidate, labelled, method, seed),
            "scored": len(scored),
            "unlabelled": len(unlabelled),
            "reason": reason,
        }

    def _best(
        self,
        scored: dict[str, tuple[str, Candidate]],
        labelled: list[Candidate],
        seed: int | None,
        datastore: Datastore,
    ) -> tuple[Candidate, float] | None:
        """Return the best candidate whose file is the one that was scored, and drop those whose file is not."""
        while scored:
            candidate, score = rank(self._name, [each for _, each in scored.values()], labelled, seed, 1)[0]
            if image_state(datastore, candidate.name) == scored[candidate.name][0]:
                return candidate, score
            del scored[candidate.name]
        return None

    def _slices(
        self, candidate: Candidate | None, labelled: list[Candidate], method: str | None, seed: int | None
    ) -> list[dict[str, Any]]:
        if candidate is None or method is None:
            return []
        plane = self._scorer.plane(method)
        chosen = rank_slices(self._name, candidate, labelled, seed=seed)
        return [{"plane": plane, "slice": index, "score": score} for index, score in chosen]


def _least_recently_offered(images: list[str], strategy: str, datastore: Datastore) -> tuple[list[str], int]:
    """Return the images that were not offered for longest, and for how many seconds.

    So a reader who skips an image is not shown it again at once.
    """
    objects = cast(dict[str, Any], datastore.json())["objects"]  # once: each call of the store looks at its folders
    infos = {image: objects[image]["image"]["info"] if image in objects else {} for image in images}
    offered_at = {image: info.get("strategy", {}).get(strategy, {}).get("ts", 0) for image, info in infos.items()}
    oldest = min(offered_at.values())
    return [image for image in images if offered_at[image] == oldest], int(time.time()) - oldest


def check_request(request: dict[str, Any], methods: Sequence[str]) -> None:
    """Raise RequestError 422 if the method, the seed or the client's name of a request is not valid."""
    method, seed = request.get("method"), request.get("seed")
    if method is not None and method not in methods:
        raise RequestError(f"method: {method!r} was not found; available: {', '.join(methods)}.", 422)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise RequestError("seed: give a whole number.", 422)
    client = request.get("client_id")
    if client is not None and (not isinstance(client, str) or len(client) > 200 or not is_text(client)):
        raise RequestError("client_id: give a text of at most 200 characters.", 422)
