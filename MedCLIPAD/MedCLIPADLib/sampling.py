"""The volume to label next, as the server's active learning chooses it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedCLIPADLib.files import content_hash, read_volume
from MedCLIPADLib.jobs import Job, Progress
from MedCLIPADLib.nodes import matrix_of
from MedCLIPADLib.session import Failed, Session
from MedCLIPADLib.volumes import remember

_WINDOW = (0.5, 99.5)  # percentiles of a volume that are shown black and white


@dataclass(frozen=True)
class LoadedVolume:
    """A volume that a thread has read.

    Attributes
    ----------
    image : vtkImageData
        The voxels.
    affine : (4, 4) array
        Voxel-to-RAS matrix.
    window : tuple of float
        The values to show black and white.
    sha256 : str
        Content hash; "" for a volume of several components.
    """

    image: Any
    affine: np.ndarray
    window: tuple[float, float]
    sha256: str


class Sampling:
    """Loads the volume to label next, for the main thread.

    Parameters
    ----------
    session : Session
        Its connection and jobs are used.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def next(
        self,
        strategy: str,
        method: str,
        done: Callable[[Any, dict], Any],
        failed: Failed,
        progress: Progress | None = None,
        cancelled: Callable[[], Any] | None = None,
    ) -> Job:
        """Load the volume to label next.

        Parameters
        ----------
        strategy : str
            Strategy that chooses it.
        method : str
            Method whose scores the strategy uses.
        done : callable
            Called with the volume's node, or None if all volumes are labelled, and the server's answer.
        failed, progress, cancelled : callable
            Callbacks; see `Jobs.start`.
        """
        client = self._session.client()
        url = client.url

        def work(job: Job) -> tuple[dict, LoadedVolume | None]:
            job.report(_("Requesting the next volume"))
            sample = client.next_sample(strategy, {"method": method} if method else {})
            if not sample.get("id"):
                return sample, None
            downloading = _("Downloading")
            with tempfile.TemporaryDirectory(prefix="medclipad-") as folder:
                path = client.download_image(
                    sample["id"], Path(folder), lambda read, total: job.report(downloading, read, total)
                )
                job.report(_("Reading the volume"))
                return sample, load_volume(path)

        def finish(answer: tuple[dict, LoadedVolume | None]) -> None:
            sample, volume = answer
            if volume is None:
                done(None, sample)
                return
            node = add_volume(sample["id"], volume)
            if volume.sha256:
                remember(node, url, sample["id"], volume.sha256)
            done(node, sample)

        return self._session.jobs.start("Next volume", work, finish, failed, progress, cancelled)


def load_volume(path: Path) -> LoadedVolume:
    """Read a volume file. For any thread: no MRML.

    It also does all that would take long in the main thread.
    """
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    array, affine = read_volume(path)
    sha256 = content_hash(array, affine) if array.ndim == 3 else ""
    flat = np.ascontiguousarray(array).reshape((-1,) if array.ndim == 3 else (-1, array.shape[3]))
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[2::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(flat, deep=True))
    image.GetScalarRange()
    low, high = np.percentile(flat[::16], _WINDOW)
    return LoadedVolume(image, affine, (float(low), max(float(high), float(low) + 1e-6)), sha256)


def add_volume(name: str, volume: LoadedVolume) -> Any:
    """Add a volume to the scene and return its node."""
    scene = slicer.mrmlScene
    if volume.image.GetNumberOfScalarComponents() > 1:
        node = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", scene.GenerateUniqueName(name))
        node.SetAndObserveImageData(volume.image)
        node.CreateDefaultDisplayNodes()
    else:
        display = scene.AddNewNodeByClass("vtkMRMLScalarVolumeDisplayNode")
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
        display.AutoWindowLevelOff()  # it would examine all voxels, and block the interface meanwhile
        display.SetWindowLevelMinMax(*volume.window)
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", scene.GenerateUniqueName(name))
        node.SetAndObserveDisplayNodeID(display.GetID())
        node.SetAndObserveImageData(volume.image)
    node.SetIJKToRASMatrix(matrix_of(volume.affine))
    return node
