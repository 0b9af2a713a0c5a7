"""Training: its parameters as a form, its progress, and old against new."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Callable

from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError, ServerError
from MedCLIPADLib.jobs import Job
from MedCLIPADLib.session import Failed, Session

POLL = 1.0  # seconds between two questions for progress
LOST_FOR = 5  # questions in a row that the server may leave unanswered before we call it gone
_OVER = ("DONE", "ERROR", "STOPPED")


@dataclass(frozen=True)
class Field:
    """One parameter of a JSON schema. kind: choice, integer, number, boolean, text, list or object."""

    name: str
    kind: str
    default: Any
    help: str
    choices: tuple = ()
    low: float | None = None
    high: float | None = None

    @property
    def title(self) -> str:
        return self.name.replace("_", " ").capitalize()


def fields(schema: dict) -> list[Field]:
    """The parameters of an object's JSON schema, in its order."""
    found = []
    for name, raw in (schema.get("properties") or {}).items():
        spec = _resolved(raw, schema)
        kind = "choice" if spec.get("enum") else _KINDS.get(spec.get("type", "string"), "text")
        low, high = spec.get("minimum"), spec.get("maximum")
        if low is None and spec.get("exclusiveMinimum") is not None:
            low = spec["exclusiveMinimum"]
        if high is None and spec.get("exclusiveMaximum") is not None:
            high = spec["exclusiveMaximum"]
        default = spec.get("default", (spec.get("enum") or [None])[0])
        found.append(Field(name, kind, default, spec.get("description", ""), tuple(spec.get("enum") or ()), low, high))
    return found


def parsed(field: Field, value: Any) -> Any:
    """What a form's widget holds as a JSON value; ModuleError if it cannot be one."""
    if field.kind == "list":
        return [part.strip() for part in str(value).split(",") if part.strip()]
    if field.kind == "object":
        try:
            found = json.loads(value or "{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ModuleError(
                _("{title} must be a JSON object such as {example}.").format(
                    title=field.title, example='{"learning_rate": 0.001}'
                )
            )
        return found
    return value


def shown(field: Field) -> str:
    """The default of a text, list or object as text."""
    if field.kind == "list":
        return ", ".join(str(part) for part in field.default or [])
    if field.kind == "object":
        return json.dumps(field.default) if field.default else ""
    return "" if field.default is None else str(field.default)


def comparison(outcome: dict) -> list[tuple[str, str, str]]:
    """Rows (metric, old, new) of a training's outcome; "–" where a figure is not known."""
    old, new = outcome.get("old") or {}, outcome.get("new") or {}
    text = lambda value: "–" if value is None else f"{value:.3f}"  # noqa: E731
    metrics = (
        ("slice_auroc", _("Slice AUROC")),
        ("voxel_auroc", _("Voxel AUROC")),
        ("average_precision", _("Average precision")),
        ("dice", _("Best Dice")),
    )
    return [(title, text(old.get(key)), text(new.get(key))) for key, title in metrics]


def stage(progress: dict) -> str:
    """Where a training is, in words."""
    parts = [str(progress.get("phase") or _("starting")).capitalize()]
    if progress.get("epochs"):
        parts.append(_("epoch {number} of {all}").format(number=progress.get("epoch") or 0, all=progress["epochs"]))
    if progress.get("loss") is not None:
        parts.append(_("loss {value}").format(value=f"{progress['loss']:.4f}"))
    if progress.get("remaining") is not None:
        parts.append(_("{seconds} s left").format(seconds=round(progress["remaining"])))
    return ", ".join(parts)


class Training:
    """Starts a training at the server and follows it. Main thread only."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._job: Job | None = None

    @property
    def methods(self) -> dict:
        """{method: JSON schema of its training parameters}."""
        trainers = self.session.info.get("trainers") or {}
        return {name: trainer.get("schema") or {} for name, trainer in trainers.items()}

    def start(
        self, method: str, params: dict, progress: Callable[[dict], None], done: Callable[[dict], None], failed: Failed
    ) -> Job:
        """Train; `progress(report)` each second, then `done(last report)`."""
        client = self.session.client()

        def work(job: Job) -> dict:
            client.train(method, params)
            return _follow(job, client, progress)

        self._job = self.session.jobs.start("Train", work, done, failed)
        return self._job

    def follow(self, progress: Callable[[dict], None], done: Callable[[dict], None], failed: Failed) -> Job:
        """Follow the training that runs at the server already; `done({})` at once if none does."""
        client = self.session.client()

        def work(job: Job) -> dict:
            try:
                running = client.train_progress()["status"] not in _OVER
            except ServerError as error:
                if error.status != 404:
                    raise
                running = False  # there has been no training yet
            return _follow(job, client, progress) if running else {}

        self._job = self.session.jobs.start("Train", work, done, failed)
        return self._job

    def stop(self, failed: Failed) -> None:
        """Stop the training at the server; its follower then says so."""
        client = self.session.client()
        self.session.jobs.start("Stop training", lambda job: client.stop_training(), lambda _answer: None, failed)


def _follow(job: Job, client: Any, progress: Callable[[dict], None]) -> dict:
    lost = 0
    while True:
        try:
            report = client.train_progress()
            lost = 0
        except ServerError as error:
            lost += 1
            if error.status is not None or lost >= LOST_FOR:
                raise
            job.wait(POLL)
            job.check()
            continue
        job.tell(lambda report=report: progress(report))
        if report["status"] == "DONE":
            return report
        if report["status"] == "ERROR":
            raise ModuleError(report.get("error") or _("The training failed; the server's log says why."))
        if report["status"] == "STOPPED":
            raise ModuleError(_("The training was stopped; what served before goes on serving."))
        job.wait(POLL)
        job.check()


_KINDS = {"integer": "integer", "number": "number", "boolean": "boolean", "array": "list", "object": "object"}


def _resolved(spec: dict, schema: dict) -> dict:
    """A property's schema with its reference followed and "or null" left away."""
    if "$ref" in spec:
        target = schema.get("$defs", {}).get(spec["$ref"].rpartition("/")[2], {})
        spec = {**target, **{key: value for key, value in spec.items() if key != "$ref"}}
    for options in (spec.get("anyOf"), spec.get("allOf")):
        real = [option for option in options or [] if option.get("type") != "null"]
        if real:
            spec = {**_resolved(real[0], schema), **{k: v for k, v in spec.items() if k not in ("anyOf", "allOf")}}
    if "const" in spec:
        spec = {**spec, "enum": [spec["const"]]}
    return spec
