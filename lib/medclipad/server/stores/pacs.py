"""The archive that holds the studies, over DICOMweb: what is there, fetching a series, storing objects.

Whatever goes wrong on the way is one sentence: 503 where the archive cannot be reached, 502 where it fails or answers
nonsense. No message holds an address's credentials, a patient's name or an answer of the archive.
"""

from __future__ import annotations

import os
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

TIMEOUT = (5.0, 60.0)  # seconds to connect, and between two packets of an answer
NO_IMAGES = frozenset(  # modalities
    [
        *("SEG", "SR", "PR", "KO", "DOC", "REG", "FID", "PLAN", "AU", "ECG", "EPS", "HD", "RESP", "STAIN", "ASMT"),
        *("RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "TEXTUREMAP"),
    ]
)
MADE_OF_IMAGES = frozenset(
    {
        SegmentationStorage,
        ParametricMapStorage,
        SecondaryCaptureImageStorage,
        MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)


@dataclass(frozen=True)
class RemoteSeries:
    """A series in the archive."""

    uid: str
    study: str
    modality: str
    description: str


class Pacs:
    """An archive by the address of its DICOMweb service, such as http://127.0.0.1:8042/dicom-web.

    search: QIDO filters, such as {"StudyDate": "20260101-"}, that all its series must match. user and password are
    sent as HTTP basic authentication; or `token` as bearer token. authority: file with the certificate of the
    authority that signed the archive's, where that is no public one.
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
        self._client.set_http_retry_params(retry=False)  # it would send the rest of what it has sent half
        self._search = search or {}
        self._kinds: dict[str, str] = {}

    @classmethod
    def from_environment(cls, url: str) -> Pacs:
        """By MEDCLIPAD_PACS_USER and _PASSWORD, or _TOKEN; _AUTHORITY, a file; _SEARCH, written A=1&B=2."""
        search = dict(part.split("=", 1) for part in os.environ.get("MEDCLIPAD_PACS_SEARCH", "").split("&") if part)
        names = ("USER", "PASSWORD", "TOKEN", "AUTHORITY")
        return cls(url, *(os.environ.get(f"MEDCLIPAD_PACS_{name}", "") for name in names), search=search)

    def images(self) -> list[RemoteSeries]:
        """The series that can be volumes: no segmentations, maps, captures, reports or plans."""
        found = [series for series in self._series(self._search) if series.modality not in NO_IMAGES]
        return [series for series in found if self._kind(series) not in MADE_OF_IMAGES]

    def segmentations(self) -> list[RemoteSeries]:
        """The series of segmentations, whoever made them."""
        return self._series({"Modality": "SEG"})

    def header(self, series: RemoteSeries) -> Dataset:
        """All of the first object of a series but its pixels."""
        with _answered():
            first = self._client.retrieve_series_metadata(series.study, series.uid)[0]
            first.pop("7FE00010", None)
            return Dataset.from_json(first, bulk_data_uri_handler=lambda *_: None)

    def fetch(self, series: RemoteSeries, folder: Path) -> list[Path]:
        """Save the objects of a series as files in an existing folder, as they are; all of them, or RequestError."""
        with _answered():
            instances = self._client.search_for_instances(series.study, series.uid, get_remaining=True)
            wanted = {item["00080018"]["Value"][0] for item in instances}
            files = {}
            for dataset in self._client.iter_series(
                series.study, series.uid, media_types=(("application/dicom", "*"),)
            ):
                path = folder / f"{len(files):05d}.dcm"
                dataset.save_as(path)
                files[str(dataset.SOPInstanceUID)] = path
        if not wanted or wanted - set(files):
            raise RequestError(
                f"The archive sent {len(files)} of the {len(wanted)} images of a series: try again, or look after it.",
                502,
            )
        return list(files.values())

    def store(self, datasets: Sequence[Dataset]) -> None:
        """Store objects; RequestError 502 if one is refused."""
        with _answered():
            answer = self._client.store_instances(datasets)
            stored = {item.ReferencedSOPInstanceUID for item in answer.get("ReferencedSOPSequence", [])}
        if {str(dataset.SOPInstanceUID) for dataset in datasets} - stored:
            raise RequestError("The archive did not take what was to be stored: look at its log.", 502)

    def _series(self, search: dict[str, Any]) -> list[RemoteSeries]:
        with _answered():
            items = self._client.search_for_series(
                search_filters=search, fields=["SeriesDescription", "Modality"], get_remaining=True
            )
            found = [Dataset.from_json(item) for item in items]
            return [
                RemoteSeries(
                    str(one.SeriesInstanceUID),
                    str(one.StudyInstanceUID),
                    str(one.get("Modality") or ""),
                    str(one.get("SeriesDescription") or ""),
                )
                for one in found
            ]

    def _kind(self, series: RemoteSeries) -> str:
        """SOP class of a series, asked for once: it never changes."""
        if series.uid not in self._kinds:
            with _answered():
                first = self._client.search_for_instances(series.study, series.uid, limit=1, fields=["SOPClassUID"])
                self._kinds[series.uid] = first[0]["00080016"]["Value"][0] if first else ""
        return self._kinds[series.uid]


@contextmanager
def _answered() -> Iterator[None]:
    """Turn whatever happens between us and the archive into one sentence."""
    try:
        yield
    except RequestError:
        raise
    except requests.exceptions.SSLError as error:
        raise RequestError(
            "The archive's certificate is not trusted: name its authority's file in MEDCLIPAD_PACS_AUTHORITY.", 502
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
        raise RequestError(
            f"The archive with the studies failed (HTTP status {status}): look at its log.", 502
        ) from error
    except OSError as error:
        if isinstance(error, requests.RequestException):  # an answer that broke off
            raise RequestError("The archive's answer broke off: try again.", 502) from error
        raise RequestError(f"The server cannot keep what it fetches ({error.strerror}): make room.", 507) from error
    except Exception as error:  # what parsers raise over half an answer, or something else than DICOM
        raise RequestError("The archive's answer is not DICOM: check its address, and try again.", 502) from error
