"""Work on one volume and its maps: detect, list regions, make a segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

from MedCLIPADLib import head, segmentation, volumes
from MedCLIPADLib.detection import Answer, Request, analyse
from MedCLIPADLib.jobs import Job, Progress
from MedCLIPADLib.marks import marks, merge_marks, set_marks
from MedCLIPADLib.regions import find_regions, store_regions
from MedCLIPADLib.results import HEAD, Result
from MedCLIPADLib.session import Failed, Session


@dataclass(frozen=True)
class _Input:
    """What was analysed: the volume's node, its grid, and which part of it."""

    node: Any
    affine: np.ndarray
    whole: bool
    time_point: int | None


class Analysis:
    """Analyses of volumes, for the main thread.

    Parameters
    ----------
    session : Session
        Its connection and jobs are used.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def detect(
        self,
        node: Any,
        request: Request,
        done: Callable[[Result], Any],
        failed: Failed,
        progress: Progress | None = None,
        cancelled: Callable[[], Any] | None = None,
    ) -> Job:
        """Analyse a volume and add the result to the scene.

        Parameters
        ----------
        node : vtkMRMLScalarVolumeNode
            The volume.
        request : Request
            What to analyse it with.
        done, failed, progress, cancelled : callable
            Callbacks; see `Jobs.start`. None of them is called if the volume is deleted meanwhile.

        Raises
        ------
        ModuleError
            At once, if the volume cannot be analysed or there is no connection.
        """
        client = self._session.client()
        limit = self._session.limit
        source = volumes.source(node, request.component, request.time_point)
        in_sequence = volumes.sequence_of(node)[0] is not None
        whole = not in_sequence and volumes.components(node) == 1
        analysed = _Input(node, source.affine, whole, request.time_point if in_sequence else None)

        def work(job: Job) -> tuple[Answer, dict]:
            answer = analyse(client, source, request, job, limit)
            return answer, client.marks(answer.image)

        def finish(outcome: tuple[Answer, dict]) -> None:
            if node.GetScene() is None:
                return  # the node was deleted, or the scene closed, in the meantime
            answer, remote = outcome
            if self._session.pending.has_marks(answer.server, answer.sha256):
                remote = None  # the reader's are newer, also those that were removed
            done(_add_result(analysed, answer, remote))

        return self._session.jobs.start("Detect", work, finish, failed, progress, cancelled)

    def regions(self, result: Result, limit: float | None, done: Callable[[list], Any], failed: Failed) -> Job:
        """List the regions of a map in the result's table node.

        Parameters
        ----------
        result : Result
            The map; its regions are above its current threshold.
        limit : float or None
            Value that the peak of a region exceeds.
        done, failed : callable
            Callbacks; `done` gets the regions.
        """
        array, slicing, threshold = result.array, result.slicing, result.threshold
        for job in self._session.jobs.active("Regions"):
            job.cancel()

        def finish(found: list) -> None:
            if result.node.GetScene() is not None:
                store_regions(result, found, limit)
                done(found)

        return self._session.jobs.start(
            "Regions", lambda job: find_regions(array, slicing, threshold, limit), finish, failed
        )

    def show_head(self, result: Result, failed: Failed) -> None:
        """Add the surface of the body to a map in 3D, if it has none."""
        if result.reference(HEAD) is not None or self._session.jobs.active("Body"):
            return
        array, affine = result.array, result.affine

        def finish(surface: Any) -> None:
            if result.node.GetScene() is not None:
                head.show_head(result, surface)

        self._session.jobs.start("Body", lambda job: head.body_surface(array, affine), finish, failed)

    def segment(self, result: Result, limit: float | None, done: Callable[[Any], Any], failed: Failed) -> Job:
        """Make a segmentation of the regions of a map; the parameters are as in `regions`.

        `done` gets the segmentation's node.
        """
        array, threshold = result.array, result.threshold

        def finish(part: tuple) -> None:
            if result.node.GetScene() is not None:
                done(segmentation.make_segmentation(result, *part))

        return self._session.jobs.start(
            "Segmentation", lambda job: segmentation.crop_regions(array, threshold, limit), finish, failed
        )


def _add_result(analysed: _Input, answer: Answer, remote_marks: dict | None) -> Result:
    """Add the result of an analysis to the scene, and the marks that the server has of its volume."""
    node = analysed.node
    if analysed.time_point is not None:
        volumes.show_time_point(node, analysed.time_point)
    if analysed.whole:  # a component or time point is an image of its own on the server
        volumes.remember(node, answer.server, answer.image, answer.sha256)
    if remote_marks is not None:
        set_marks(node, answer.image, merge_marks(marks(node, answer.image), remote_marks))
    return Result.create(node, answer, analysed.affine, analysed.time_point)
