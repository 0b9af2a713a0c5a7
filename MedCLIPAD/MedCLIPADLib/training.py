"""Training on the server: progress, and the new detector against the old one."""

from __future__ import annotations

from typing import Any, Callable

from slicer.i18n import tr as _

from MedCLIPADLib.client import Client
from MedCLIPADLib.errors import Cancelled, ModuleError, ServerError
from MedCLIPADLib.jobs import Job
from MedCLIPADLib.session import Failed, Session

POLL_INTERVAL = 1.0  # seconds between two requests for progress
MAX_MISSED_POLLS = 5  # requests in a row without an answer, after which the server counts as gone
_OVER = ("DONE", "ERROR", "STOPPED")


def comparison(outcome: dict) -> list[tuple[str, str, str]]:
    """Return the rows (metric, old, new) of a training's outcome.

    Figures that are not known are "–".
    """
    old, new = outcome.get("old") or {}, outcome.get("new") or {}
    metrics = (
        ("slice_auroc", _("Slice AUROC")),
        ("voxel_auroc", _("Voxel AUROC")),
        ("average_precision", _("Average precision")),
        ("dice", _("Dice at the threshold")),
    )
    return [(title, _figure(old.get(key)), _figure(new.get(key))) for key, title in metrics]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def stage(progress: dict) -> str:
    """Return the progress of a training as text."""
    parts = [str(progress.get("phase") or _("starting")).capitalize()]
    if progress.get("epochs"):
        parts.append(_("epoch {number} of {all}").format(number=progress.get("epoch") or 0, all=progress["epochs"]))
    if progress.get("loss") is not None:
        parts.append(_("loss {value}").format(value=f"{progress['loss']:.4f}"))
    remaining = round(progress.get("remaining") or 0)
    if remaining:
        parts.append(_("{seconds} s left").format(seconds=remaining))
    return ", ".join(parts)


class Training:
    """Starts and follows trainings on the server, for the main thread.

    Parameters
    ----------
    session : Session
        Its connection and jobs are used.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def methods(self) -> dict[str, dict]:
        """JSON schema of the training parameters of each method."""
        trainers = self._session.info.get("trainers") or {}
        return {name: trainer.get("schema") or {} for name, trainer in trainers.items()}

    def start(
        self,
        method: str,
        params: dict,
        progress: Callable[[dict], Any],
        done: Callable[[dict], Any],
        failed: Failed,
        stopped: Callable[[], Any] | None = None,
    ) -> Job:
        """Start a training and follow it.

        Parameters
        ----------
        method : str
            The method to train.
        params : dict
            Training parameters; those left out have their defaults.
        progress : callable
            Called each second with the server's report.
        done : callable
            Called with the last report.
        failed : callable
            Called with one sentence if the training fails.
        stopped : callable, optional
            Called if it was stopped, or is not followed any more because the server was left; by default `failed` is.
        """
        client = self._session.client()

        def work(job: Job) -> dict:
            client.train(method, params)
            return _follow(job, client, progress)

        return self._session.jobs.start("Train", work, done, failed, cancelled=stopped or _stopped(failed))

    def follow(
        self,
        progress: Callable[[dict], Any],
        done: Callable[[dict], Any],
        failed: Failed,
        stopped: Callable[[], Any] | None = None,
    ) -> Job:
        """Follow the training that is already running on the server; the parameters are as in `start`.

        `done` gets {} if there is none.
        """
        client = self._session.client()

        def work(job: Job) -> dict:
            try:
                running = client.train_progress()["status"] not in _OVER
            except ServerError as error:
                if error.status != 404:
                    raise
                running = False  # there has been no training yet
            return _follow(job, client, progress) if running else {}

        return self._session.jobs.start("Train", work, done, failed, cancelled=stopped or _stopped(failed))

    def stop(self, failed: Failed) -> None:
        """Stop the training on the server.

        The job that follows it then ends as stopped.
        """
        client = self._session.client()
        self._session.jobs.start("Stop training", lambda job: client.stop_training(), lambda _answer: None, failed)


def _stopped(failed: Failed) -> Callable[[], Any]:
    return lambda: failed(_("The training was stopped; the previous detector stays in use."))


def _follow(job: Job, client: Client, progress: Callable[[dict], Any]) -> dict:
    """Poll a training until it is over, and return the last report.

    Raises ModuleError if the training failed, and Cancelled if it was stopped.
    """
    missed = 0
    while True:
        try:
            report = client.train_progress()
            missed = 0
        except ServerError as error:
            missed += 1
            if error.status is not None or missed >= MAX_MISSED_POLLS:
                raise
            job.wait(POLL_INTERVAL)
            job.check()
            continue
        job.post(lambda report=report: progress(report))
        if report["status"] == "DONE":
            return report
        if report["status"] == "ERROR":
            raise ModuleError(report.get("error") or _("The training failed: see the server's log for the reason."))
        if report["status"] == "STOPPED":
            raise Cancelled
        job.wait(POLL_INTERVAL)
        job.check()
