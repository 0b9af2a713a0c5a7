"""Which images of the studies a training learns from, checked before it starts."""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from medclipad.server.errors import RequestError
from medclipad.server.params import TrainParams

FINAL = DefaultLabelTag.FINAL.value


class Sources:
    """Ids of the images that a training learns from, and what is known of each.

    Those that the request names, else all with a final label, with marked slices, or marked {"normal": true} in their
    info. An unknown id raises RequestError 404; a case without the label that it needs, or nothing to learn from, 422.
    """

    def __init__(self, params: TrainParams, datastore: Datastore, method: str) -> None:
        known = set(datastore.list_images())
        named = {*params.normal, *params.abnormal}
        for name in sorted(named - known):
            raise RequestError(f"There is no image {name!r} in the studies.", 404)
        self._labelled = set(datastore.get_labeled_images())
        infos = {name: datastore.get_image_info(name) for name in known}
        self._marks = {name: marks for name, info in infos.items() if (marks := _marks(info))}
        for name in params.abnormal:
            if name not in self._labelled and not self._marks.get(name, {}).get("abnormal"):
                raise RequestError(
                    f"Image {name!r} has no final label and no slice marked abnormal: an abnormal case needs one.", 422
                )
        self._normal = {*params.normal} if named else {name for name in known if infos[name].get("normal") is True}
        self._abnormal = {*params.abnormal} if named else {*self._labelled, *self._marks}
        self._named = bool(named)
        if not self.names:
            raise RequestError(
                "There is nothing to learn from: save final labels, mark images or slices as normal, "
                "or name images in the request's normal and abnormal.",
                422,
            )
        shows_anomaly = any(name in self._labelled or self._marks[name]["abnormal"] for name in self._abnormal)
        if method == "mvfa" and not shows_anomaly:
            raise RequestError(
                "mvfa needs at least one image with a final label that shows an anomaly, or a slice marked abnormal.",
                422,
            )

    @property
    def names(self) -> list[str]:
        """Sorted: the same request learns the same."""
        return sorted(self._normal | self._abnormal)

    def cases(self, datastore: Datastore) -> list[dict[str, Any]]:
        """As `learn` takes them; images of a DICOMweb server are fetched here."""
        return [self._case(name, datastore) for name in self.names]

    def _case(self, name: str, datastore: Datastore) -> dict[str, Any]:
        labelled = name in self._labelled
        marks = self._marks.get(name) or {"plane": None, "normal": [], "abnormal": []}
        whole = labelled or name in self._normal  # every slice that is not abnormal is then normal
        return {
            "name": name,
            "volume": datastore.get_image_uri(name),
            "label": datastore.get_label_uri(name, FINAL) if labelled else None,
            "only_normal": name not in self._abnormal,
            "must_show": self._named and name in self._abnormal,
            "normal": None if whole else marks["normal"],
            "abnormal": marks["abnormal"],
            "plane": marks["plane"],
        }


def _marks(info: dict[str, Any]) -> dict[str, Any] | None:
    marks = info.get("marks") or {}
    return marks if marks.get("normal") or marks.get("abnormal") else None
