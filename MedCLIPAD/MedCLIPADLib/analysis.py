"""What is done with one volume and its maps: detect, list regions, make a segmentation."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from MedCLIPADLib import segmentation, volumes
from MedCLIPADLib.detection import Answer, Request, analyse
from MedCLIPADLib.jobs import Job, Progress
from MedCLIPADLib.marks import marks, merged, set_marks
from MedCLIPADLib.plots import store_scores
from MedCLIPADLib.regions import find_regions, store_regions
from MedCLIPADLib.results import Result
from MedCLIPADLib.session import Failed, Session


class Analysis:
    """Uses a session's jobs and connection; main thread only."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def detect(
        self,
        node: Any,
        request: Request,
        done: Callable[[Result], None],
        failed: Failed,
        progress: Progress | None = None,
        cancelled: Callable[[], None] | None = None,
        component: int = 0,
        time_point: int = 0,
    ) -> Job:
        """Analyse a volume node and add the result to the scene; ModuleError at once if that cannot be done."""
        client = self.session.client()
        limit = self.session.limit
        source = volumes.source(node, component, time_point)
        in_sequence = volumes.sequence_of(node)[0] is not None
        whole = not in_sequence and volumes.components(node) == 1

        def work(job: Job) -> tuple:
            answer = analyse(client, source, request, job, limit)
            return answer, client.marks(answer.image)

        def finish(outcome: tuple) -> None:
            answer, theirs = outcome
            if node.GetScene() is None:
                return  # deleted, or the scene was closed, in the meantime
            done(self._keep(node, answer, theirs, source.affine, whole, time_point if in_sequence else None))

        return self.session.jobs.start("Detect", work, finish, failed, progress, cancelled)

    @staticmethod
    def _keep(
        node: Any, answer: Answer, theirs: dict, affine: np.ndarray, whole: bool, time_point: int | None
    ) -> Result:
        if time_point is not None:
            volumes.show_time_point(node, time_point)
        if whole:  # of a component or time point the server has an image of its own
            volumes.remember(node, answer.server, answer.image, answer.sha256)
        set_marks(node, answer.image, merged(marks(node, answer.image), theirs))
        result = Result.create(node, answer, affine, time_point)
        store_scores(result)
        return result

    def regions(self, result: Result, done: Callable[[list], None], failed: Failed) -> Job:
        """List the connected parts above the present threshold in the result's table node."""
        array, slicing, threshold = result.array, result.slicing, result.threshold
        for job in self.session.jobs.active("Regions"):
            job.cancel()

        def finish(found: list) -> None:
            if result.node.GetScene() is not None:
                store_regions(result, found)
                done(found)

        return self.session.jobs.start("Regions", lambda job: find_regions(array, slicing, threshold), finish, failed)

    def segment(self, result: Result, done: Callable[[Any], None], failed: Failed) -> Job:
        """Make a segmentation of what is above the present threshold."""
        array, threshold = result.array, result.threshold

        def finish(part: tuple) -> None:
            if result.node.GetScene() is not None:
                done(segmentation.make_segmentation(result, *part))

        return self.session.jobs.start(
            "Segmentation", lambda job: segmentation.cut_out(array, threshold), finish, failed
        )
