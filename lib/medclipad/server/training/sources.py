"""Choose the images of the studies that a training learns from, and check them before it starts."""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from medclipad.files import sha256_of_text
from medclipad.methods import Method
from medclipad.server.errors import RequestError
from medclipad.server.params import TrainParams

FINAL = DefaultLabelTag.FINAL.value
MEASURED = 20  # images that a request does not name and that are measured on: each costs seconds


class Sources:
    """The images that a training learns from, and what is known about each.

    They are those that the request names, or else all images with a final label, with marked slices, or with
    {"normal": true} in their info.

    Parameters
    ----------
    params
        Parameters of the training.
    datastore
        The studies.
    method
        The method.

    Raises
    ------
    RequestError
        404 for an unknown id; 422 for an abnormal image without a label, or if there is nothing to learn from.
    """

    def __init__(self, params: TrainParams, datastore: Datastore, method: type[Method]) -> None:
        known = set(datastore.list_images())
        named = {*params.normal, *params.abnormal}
        for name in sorted(named - known):
            raise RequestError(f"Image {name!r} was not found in the studies.", 404)
        self._labelled = set(datastore.get_labeled_images())
        infos = {name: datastore.get_image_info(name) for name in known}
        self._marks = {name: marks for name, info in infos.items() if (marks := _marks(info))}
        for name in params.abnormal:
            if name not in self._labelled and not self._marks.get(name, {}).get("abnormal"):
                raise RequestError(
                    f"Image {name!r} has no final label and no slice marked abnormal: "
                    "an abnormal case needs one of them.",
                    422,
                )
        self._known_normal = {name for name in known if infos[name].get("normal") is True}
        self._normal = {*params.normal} if named else self._known_normal
        self._abnormal = {*params.abnormal} if named else {*self._labelled, *self._marks}
        self._named = bool(named)
        if not self.names:
            raise RequestError(
                "There is nothing to learn from: save final labels, mark images or slices as normal, "
                "or name images in the request's normal and abnormal.",
                422,
            )
        shows_anomaly = any(name in self._labelled or self._marks[name]["abnormal"] for name in self._abnormal)
        if "abnormal" in method.needs and not shows_anomaly:
            raise RequestError(
                f"{method.name} needs at least one image with a final label that shows an anomaly, "
                "or with a slice marked abnormal.",
                422,
            )

    @property
    def names(self) -> list[str]:
        """Ids of all images to learn from, sorted so that the same request always learns the same."""
        return sorted(self._normal | self._abnormal)

    def cases(self, datastore: Datastore) -> list[dict[str, Any]]:
        """Return the cases of a training job, after fetching images that are in an archive.

        Images that are labelled but not named by the request come last: they are measured on, not learned from.
        """
        learned = [self._case(name, datastore) for name in self.names]
        return [*learned, *({**self._case(name, datastore), "only_measure": True} for name in self._measured())]

    def _measured(self) -> list[str]:
        """Return labelled images that the request does not name, those with an anomaly first, at most MEASURED."""
        sick = {*self._labelled, *(name for name, marks in self._marks.items() if marks["abnormal"])}
        labelled = {*self._labelled, *self._marks, *self._known_normal} - {*self.names}
        ranked = sorted(labelled, key=lambda name: (name not in sick, sha256_of_text(name)))
        healthy = [name for name in ranked if name not in sick][: MEASURED // 2]
        return [*[name for name in ranked if name in sick][: MEASURED - len(healthy)], *healthy]

    def _case(self, name: str, datastore: Datastore) -> dict[str, Any]:
        labelled = name in self._labelled
        marks = self._marks.get(name) or {"plane": None, "normal": [], "abnormal": []}
        whole = labelled or name in self._normal | self._known_normal  # what is not abnormal is then normal
        return {
            "name": name,
            "volume": datastore.get_image_uri(name),
            "label": datastore.get_label_uri(name, FINAL) if labelled else None,
            "only_normal": name in self._normal and name not in self._abnormal,
            "only_measure": False,
            "must_show": self._named and name in self._abnormal,
            "normal": None if whole else marks["normal"],
            "abnormal": marks["abnormal"],
            "plane": marks["plane"],
        }


def _marks(info: dict[str, Any]) -> dict[str, Any] | None:
    marks = info.get("marks") or {}
    return marks if marks.get("normal") or marks.get("abnormal") else None
