"""List, fetch and store DICOM objects in the archive that holds the studies, over DICOMweb.

Every failure becomes one sentence: 503 if the archive cannot be reached, 502 if it fails or its answer is not valid. No
message contains credentials, a patient's name or text from the archive.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.uid import (
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from medclipad.server.errors import RequestError

UID = re.compile(r"[0-9]+(\.[0-9]+)*")
TIMEOUT = (5.0, 60.0)  # seconds to connect, and between two packets of an answer
NON_IMAGE_MODALITIES = frozenset(
    [
        *("SEG", "SR", "PR", "KO", "DOC", "REG", "FID", "PLAN", "AU", "ECG", "EPS", "HD", "RESP", "STAIN", "ASMT"),
        *("RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "TEXTUREMAP"),
    ]
)
DERIVED_CLASSES = frozenset(  # SOP classes of objects that are made from images
    {
        SegmentationStorage,
        ParametricMapStorage,
        SecondaryCaptureImageStorage,
        MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)


@dataclass(frozen=True)
class RemoteSeries:
    """A series in the archive.

    Attributes
    ----------
    uid, study
        UIDs of the series and of its study.
    modality, description
        As the archive lists them; "" if it does not.
    """

    uid: str
    study: str
    modality: str
    description: str


class Pacs:
    """Archive that speaks DICOMweb.

    Parameters
    ----------
    url
        Address of its DICOMweb service, such as "http://127.0.0.1:8042/dicom-web".
    user, password
        Sent as HTTP basic authentication; "" for none.
    token
        Sent as bearer token; "" for none.
    authority
        File with the certificate of the authority that signed the archive's; "" for the public ones.
    search
        QIDO filters that the series must match, such as {"StudyDate": "20260101-"}.
    """

    def __init__(
        self,
        url: str,
        user: str = "",
        password: str = "",
        token: str = "",
        authority: str = "",
        search: dict[str, Any] | None = None,
    ) -> None:
        session = requests.Session()
        session.trust_env = False  # an archive is named by its address: no proxy, no .netrc
        session.verify = authority or True
        if user:
            session.auth = (user, password)
        headers = {"Authorization": f"Bearer {token}"} if token else None
        self._client = DICOMwebClient(url, session=session, headers=headers, timeout=TIMEOUT, chunk_size=2**23)
        self._client.set_http_retry_params(retry=False)  # a retry would continue a request half-way
        self._search = search or {}
        self._sop_classes: dict[str, str] = {}  # by series UID

    @classmethod
    def from_environment(cls, url: str, search: dict[str, Any] | None = None) -> Pacs:
        """Return the archive at an address, with the settings of the environment.

        They are MEDCLIPAD_PACS_USER and MEDCLIPAD_PACS_PASSWORD, or MEDCLIPAD_PACS_TOKEN; MEDCLIPAD_PACS_AUTHORITY; and
        MEDCLIPAD_PACS_SEARCH, written as A=1&B=2, which `search` takes the place of.
        """
        if search is None:
            parts = os.environ.get("MEDCLIPAD_PACS_SEARCH", "").split("&")
            search = dict(part.split("=", 1) for part in parts if part)
        names = ("USER", "PASSWORD", "TOKEN", "AUTHORITY")
        return cls(url, *(os.environ.get(f"MEDCLIPAD_PACS_{name}", "") for name in names), search=search)

    def images(self) -> list[RemoteSeries]:
        """Return the series that can be volumes: no segmentations, maps, captures, reports or plans."""
        found = [series for series in self._series(self._search) if series.modality not in NON_IMAGE_MODALITIES]
        return [series for series in found if self._known_sop_class(series) not in DERIVED_CLASSES]

    def segmentations(self) -> list[RemoteSeries]:
        """Return the series of segmentations, whoever made them."""
        return self._series({"Modality": "SEG"})

    def header(self, series: RemoteSeries) -> Dataset:
        """Return the first object of a series without its pixels."""
        with _archive_errors():
            first = self._client.retrieve_series_metadata(series.study, series.uid)[0]
            first.pop("7FE00010", None)
            return Dataset.from_json(first, bulk_data_uri_handler=lambda *_: None)

    def fetch(self, series: RemoteSeries, folder: Path) -> list[Path]:
        """Save the objects of a series as files in an existing folder, unchanged.

        Raises
        ------
        RequestError
            502 if the archive does not send all of them.
        """
        with _archive_errors():
            instances = self._client.search_for_instances(series.study, series.uid, get_remaining=True)
            expected = {item["00080018"]["Value"][0] for item in instances}
            files = {}
            for dataset in self._client.iter_series(
                series.study, series.uid, media_types=(("application/dicom", "*"),)
            ):
                path = folder / f"{len(files):05d}.dcm"
                dataset.save_as(path)
                files[str(dataset.SOPInstanceUID)] = path
        if not expected or expected - set(files):
            raise RequestError(
                f"The archive sent {len(files)} of the {len(expected)} images of a series: "
                "try again, or check the archive.",
                502,
            )
        return list(files.values())

    def store(self, datasets: Sequence[Dataset]) -> None:
        """Store objects in the archive; raise RequestError 502 if it refuses one."""
        with _archive_errors():
            answer = self._client.store_instances(datasets)
            stored = {item.ReferencedSOPInstanceUID for item in answer.get("ReferencedSOPSequence", [])}
        if {str(dataset.SOPInstanceUID) for dataset in datasets} - stored:
            raise RequestError("The archive did not store the objects: see its log.", 502)

    def _series(self, search: dict[str, Any]) -> list[RemoteSeries]:
        with _archive_errors():
            items = self._client.search_for_series(
                search_filters=search, fields=["SeriesDescription", "Modality"], get_remaining=True
            )
        found = [_remote_series(item) for item in items]
        return [series for series in found if series is not None]

    def _known_sop_class(self, series: RemoteSeries) -> str:
        """Return the SOP class of a series; "" if the archive cannot say: one such series must not hide the others."""
        try:
            return self._sop_class(series)
        except RequestError as error:
            if error.status == 503:  # not this series: the archive
                raise
            return ""

    def _sop_class(self, series: RemoteSeries) -> str:
        """Return the SOP class of a series, requested once: it never changes."""
        if series.uid not in self._sop_classes:
            with _archive_errors():
                first = self._client.search_for_instances(series.study, series.uid, limit=1, fields=["SOPClassUID"])
                self._sop_classes[series.uid] = first[0]["00080016"]["Value"][0] if first else ""
        return self._sop_classes[series.uid]


def _remote_series(item: dict[str, Any]) -> RemoteSeries | None:
    """Return an entry of the archive's list; None if it is not a series with valid UIDs."""
    try:
        entry = Dataset.from_json(item)
        series, study = str(entry.SeriesInstanceUID), str(entry.StudyInstanceUID)
        texts = [str(entry.get(name) or "") for name in ("Modality", "SeriesDescription")]
    except Exception:  # whatever pydicom raises on values that are not DICOM
        return None
    return RemoteSeries(series, study, *texts) if UID.fullmatch(series) and UID.fullmatch(study) else None


@contextmanager
def _archive_errors() -> Iterator[None]:
    """Turn every error between this server and the archive into a RequestError."""
    try:
        yield
    except RequestError:
        raise
    except requests.exceptions.SSLError as error:
        raise RequestError(
            "The archive's certificate is not trusted: set MEDCLIPAD_PACS_AUTHORITY to its authority's file.", 502
        ) from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise RequestError(
            "The archive with the studies does not answer: start it, or try again later.", 503, {"Retry-After": "10"}
        ) from error
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise RequestError(
                "The archive with the studies refuses this server: check MEDCLIPAD_PACS_USER and its password.", 502
            ) from error
        raise RequestError(f"The archive with the studies failed (HTTP status {status}): see its log.", 502) from error
    except OSError as error:
        if isinstance(error, requests.RequestException):  # the connection was lost during the answer
            raise RequestError("The archive's answer is incomplete: try again.", 502) from error
        raise RequestError(
            f"The server cannot store what it fetches ({error.strerror}): free some disk space.", 507
        ) from error
    except Exception as error:  # what parsers raise on half an answer, or on something other than DICOM
        raise RequestError("The archive's answer is not DICOM: check its address, and try again.", 502) from error
