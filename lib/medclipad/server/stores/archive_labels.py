"""Labels in an archive: DICOM Segmentations in series called "MedCLIPAD label <tag>"."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from pydicom.dataset import Dataset

from medclipad.server.errors import RequestError
from medclipad.server.stores.pacs import Pacs, RemoteSeries

LABEL_PREFIX = "MedCLIPAD label "
RETRY_SECONDS = 300.0  # until a segmentation whose header could not be read is asked for again


@dataclass(frozen=True)
class Label:
    """A label in the archive.

    Attributes
    ----------
    series
        Series of the segmentation.
    image
        UID of the image's series.
    tag
        Tag of the label, such as "final".
    made
        When the segmentation was made, in ISO 8601 and UTC.
    """

    series: RemoteSeries
    image: str
    tag: str
    made: str


class ArchiveLabels:
    """The labels of an archive, of which each header is requested once. One thread at a time calls `newest`.

    Parameters
    ----------
    pacs
        The archive.
    """

    def __init__(self, pacs: Pacs) -> None:
        self._pacs = pacs
        self._labels: dict[str, Label | None] = {}  # by series UID; None for other programs' segmentations
        self._unreadable: dict[str, float] = {}  # by series UID: when its header could not be read

    def newest(self, images: Collection[str], removed: Collection[str]) -> list[Label]:
        """Return the newest label of each image and tag.

        Parameters
        ----------
        images
            UIDs of the images' series; labels of others are left out.
        removed
            UIDs of segmentations that no longer count.
        """
        newest: dict[tuple[str, str], Label] = {}
        for series in self._pacs.segmentations():
            label = self._known(series)
            if label is None or label.image not in images or series.uid in removed:
                continue
            key = (label.image, label.tag)
            if key not in newest or label.made > newest[key].made:
                newest[key] = label
        return list(newest.values())

    def of(self, image: str, tag: str) -> list[Label]:
        """Return all labels of an image and tag that were seen, also those that no longer count."""
        labels = list(self._labels.values())
        return [label for label in labels if label and (label.image, label.tag) == (image, tag)]

    @property
    def unreadable(self) -> int:
        """Number of segmentations whose header the archive could not send."""
        return len(self._unreadable)

    def _known(self, series: RemoteSeries) -> Label | None:
        """Return a segmentation as a label of ours; one that the archive cannot send must not hide the others."""
        if series.uid in self._labels:  # a series never changes: one look suffices
            return self._labels[series.uid]
        if time.monotonic() - self._unreadable.get(series.uid, -RETRY_SECONDS) < RETRY_SECONDS:
            return None
        try:
            self._labels[series.uid] = self._read(series)
        except RequestError as error:
            if error.status == 503:  # not this series: the archive
                raise
            self._unreadable[series.uid] = time.monotonic()
            return None
        self._unreadable.pop(series.uid, None)
        return self._labels[series.uid]

    def _read(self, series: RemoteSeries) -> Label | None:
        """Return a segmentation as a label of ours; None if another program made it."""
        if series.description and not series.description.startswith(LABEL_PREFIX):
            return None
        header = self._pacs.header(series)
        description, references = str(header.get("SeriesDescription", "")), header.get("ReferencedSeriesSequence")
        if not description.startswith(LABEL_PREFIX) or not references:
            return None
        tag = description.removeprefix(LABEL_PREFIX)
        return Label(series, str(references[0].SeriesInstanceUID), tag, _made_at(header))


def _made_at(header: Dataset) -> str:
    """Return when an object was made, in ISO 8601 and UTC; a time without zone is taken for this server's."""
    text = f"{header.get('ContentDate', '')}{header.get('ContentTime', '')}"
    zone = str(header.get("TimezoneOffsetFromUTC", "") or "").strip()
    form = "%Y%m%d%H%M%S.%f" if "." in text else "%Y%m%d%H%M%S"
    try:
        made = datetime.strptime(f"{text}{zone}", f"{form}%z") if zone else datetime.strptime(text, form).astimezone()
    except ValueError:
        return ""
    return made.astimezone(UTC).isoformat(timespec="microseconds")
