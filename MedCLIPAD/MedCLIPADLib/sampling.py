"""The volume to look at next, as the server's active learning chooses it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Callable

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedCLIPADLib.files import content_hash, read_volume
from MedCLIPADLib.jobs import Job, Progress
from MedCLIPADLib.results import matrix_of
from MedCLIPADLib.session import Failed, Session
from MedCLIPADLib.volumes import remember

_SHOWN = (0.5, 99.5)  # percentiles of a volume that are shown black and white


class Sampling:
    """Main thread only."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def next(
        self,
        strategy: str,
        method: str,
        done: Callable[[Any, dict], None],
        failed: Failed,
        progress: Progress | None = None,
        cancelled: Callable[[], None] | None = None,
    ) -> Job:
        """Load the volume to label next; `done(its node or None, the server's words)`, None when all are labelled."""
        client = self.session.client()
        url = client.url

        def work(job: Job) -> Any:
            job.report(_("Asking for the next volume"))
            sample = client.next_sample(strategy, method)
            if not sample.get("id"):
                return sample, None
            with tempfile.TemporaryDirectory(prefix="medclipad-") as folder:
                downloading = _("Downloading")
                heard = lambda done, total: job.report(downloading, done, total)  # noqa: E731
                path = client.download(sample["id"], Path(folder), heard)
                job.report(_("Reading the volume"))
                array, affine = read_volume(path)
            return sample, loaded(array, affine)

        def finish(answer: tuple) -> None:
            sample, volume = answer
            if volume is None:
                done(None, sample)
                return
            image, affine, window, sha256 = volume
            node = add_volume(sample["id"], image, affine, window)
            if sha256:
                remember(node, url, sample["id"], sha256)
            done(node, sample)

        return self.session.jobs.start("Next volume", work, finish, failed, progress, cancelled)


def loaded(array: np.ndarray, affine: np.ndarray) -> tuple:
    """(vtkImageData, affine, window, content hash or "" if it has several components) of a volume's file. For threads.

    window: (low, high), the values to show black and white.
    """
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    sha256 = content_hash(array, affine) if array.ndim == 3 else ""
    flat = np.ascontiguousarray(array).reshape((-1,) if array.ndim == 3 else (-1, array.shape[3]))
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[2::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(flat, deep=True))
    image.GetScalarRange()
    low, high = np.percentile(flat[::16], _SHOWN)
    return image, affine, (float(low), max(float(high), float(low) + 1e-6)), sha256


def add_volume(name: str, image: Any, affine: np.ndarray, window: tuple[float, float]) -> Any:
    """A volume node for voxels that a thread has read."""
    scene = slicer.mrmlScene
    if image.GetNumberOfScalarComponents() > 1:
        node = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", scene.GenerateUniqueName(name))
        node.SetAndObserveImageData(image)
        node.CreateDefaultDisplayNodes()
    else:
        display = scene.AddNewNodeByClass("vtkMRMLScalarVolumeDisplayNode")
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
        display.AutoWindowLevelOff()  # it would look at all voxels, and the interface would wait for it
        display.SetWindowLevelMinMax(*window)
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", scene.GenerateUniqueName(name))
        node.SetAndObserveDisplayNodeID(display.GetID())
        node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(matrix_of(affine))
    return node
