"""Corrections on their way to the server: labels, marks, and what this session has labelled."""

from __future__ import annotations

import json
import threading
import time
from typing import Any, Callable

from slicer.i18n import tr as _

from MedCLIPADLib.client import Client
from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.jobs import Job
from MedCLIPADLib.marks import mark, marks, set_marks, summary
from MedCLIPADLib.pending import Item
from MedCLIPADLib.results import SEGMENTATION, Result
from MedCLIPADLib.segmentation import label_of
from MedCLIPADLib.session import Failed, Session

HISTORY = "MedCLIPAD.history"


class Labelling:
    """Every label and mark is written to disk before it is sent, and forgotten there once the server has it."""

    def __init__(self, session: Session, parameters: Callable[[], Any]) -> None:
        self.session = session
        self._parameters = parameters  # gives the module's parameter node, where the history is kept
        self._sending = threading.Lock()  # one after the other: older marks must not arrive after newer ones

    def submit(self, result: Result, done: Callable[[Item], None], failed: Failed) -> Job:
        """Send the result's segmentation as its volume's label. Raises ModuleError if there is none."""
        node = result.reference(SEGMENTATION)
        if node is None:
            raise ModuleError(_("There is no segmentation of this volume yet: press Make segmentation first."))
        self._require_whole(result)
        return self._send(self._item("label", result), done, failed, label_of(node, result), result.affine)

    def mark(
        self, result: Result, first: int, last: int, kind: str | None, done: Callable[[Item], None], failed: Failed
    ) -> Job:
        """Call slices normal or abnormal (None: unmark them) and send all marks of the volume."""
        self._require_whole(result)
        slicing = result.slicing
        image = result.about["image"]
        new = mark(marks(result.volume, image), slicing.plane, first, last, kind, len(slicing))
        set_marks(result.volume, image, new)
        return self._send(self._item("marks", result, new), done, failed)

    def send_waiting(self, done: Callable[[int], None], failed: Failed) -> Job:
        """Send everything that waits; `done(number sent)`, or `failed` with what the first one that failed said."""
        pending, client = self.session.pending, self.session.client()

        def work(job: Job) -> int:
            problem: ModuleError | None = None
            sent = 0
            with self._sending:
                for item in pending.items():
                    job.check()
                    try:
                        pending.send(item, client)
                    except ModuleError as error:  # the others may still go
                        problem = problem or error
                        continue
                    job.tell(lambda item=item: note(self._parameters(), item, True))
                    sent += 1
            if problem:
                raise problem
            return sent

        return self.session.jobs.start("Send", work, done, failed)

    def _send(self, item: Item, done: Callable[[Item], None], failed: Failed, *label: Any) -> Job:
        pending = self.session.pending
        client: Client | None = self.session.client() if self.session.connected else None
        note(self._parameters(), item, False)
        if not label:
            pending.add(item)

        def work(job: Job) -> Item:
            if label:
                pending.add(item, *label)
            if client is None:
                raise ModuleError(
                    _("Not connected: the {item} is kept on this computer and offered again.").format(item=item.what)
                )
            with self._sending:
                if not pending.has(item):
                    return item  # a newer one has taken its place
                try:
                    pending.send(item, client)
                except ModuleError as error:
                    raise ModuleError(
                        _("{error} The {item} is kept on this computer and offered again.").format(
                            error=error, item=item.what
                        )
                    ) from error
            return item

        def finish(sent: Item) -> None:
            note(self._parameters(), sent, True)
            done(sent)

        return self.session.jobs.start("Send", work, finish, failed)

    @staticmethod
    def _item(kind: str, result: Result, value: dict | None = None) -> Item:
        about, volume = result.about, result.volume
        return Item(kind, about["server"], about["image"], about["sha256"], volume.GetName(), value)

    @staticmethod
    def _require_whole(result: Result) -> None:
        if result.volume is None:
            raise ModuleError(_("The volume of this map was deleted from the scene: load it again and press Detect."))


def history(parameters: Any) -> list[dict]:
    """What this scene's session labelled, oldest first: {"time", "volume", "what", "sent"}."""
    text = parameters.GetAttribute(HISTORY)
    return json.loads(text) if text else []


def note(parameters: Any, item: Item, sent: bool) -> None:
    """Add to `history`; a newer entry of the same kind and volume takes the place of the older."""
    what = _("label") if item.kind == "label" else summary(item.marks or {})
    entry = {"time": time.strftime("%H:%M:%S"), "volume": item.volume, "kind": item.kind, "what": what, "sent": sent}
    older = [old for old in history(parameters) if (old["volume"], old["kind"]) != (item.volume, item.kind)]
    parameters.SetAttribute(HISTORY, json.dumps([*older, entry]))
