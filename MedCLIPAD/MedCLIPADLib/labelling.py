"""Labels and marks on their way to the server, and their history."""

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
    """Sends labels and marks, for the main thread.

    Each label and mark is written to disk before it is sent, and removed once the server has it.

    Parameters
    ----------
    session : Session
        Its connection and jobs are used.
    parameter_node : callable
        Returns the module's parameter node, where the history is stored.
    """

    def __init__(self, session: Session, parameter_node: Callable[[], Any]) -> None:
        self._session = session
        self._parameter_node = parameter_node
        self._undo: list[tuple[str, str, dict]] = []  # (id of the volume's node, image, its marks before), oldest first
        self._sending = threading.Lock()  # one at a time, so that older marks cannot overtake newer ones

    def send_label(self, result: Result, done: Callable[[Item], Any], failed: Failed) -> Job:
        """Send the result's segmentation as its volume's label.

        Raises ModuleError if there is none.
        """
        node = result.reference(SEGMENTATION)
        if node is None:
            raise ModuleError(_("There is no segmentation of this volume yet: press Make segmentation first."))
        item = _item("label", result)
        label, affine = label_of(node, result), result.affine
        self._add_to_history(item, False)
        return self._send(item, done, failed, (label, affine))

    def mark(
        self, result: Result, first: int, last: int, kind: str | None, done: Callable[[Item], Any], failed: Failed
    ) -> Job:
        """Mark slices and send all marks of the volume.

        Parameters
        ----------
        result : Result
            A map of the volume.
        first, last : int
            First and last slice of the range, in either order.
        kind : str or None
            "normal" or "abnormal"; None removes the marks.
        done, failed : callable
            Callbacks; see `Jobs.start`.
        """
        image, slicing = result.about["image"], result.slicing
        before = marks(result.volume, image)
        new = mark(before, slicing.plane, first, last, kind, len(slicing))
        job = self._set_marks(result, new, done, failed)
        self._undo.append((result.volume.GetID(), image, before))
        return job

    def undo(self, result: Result, done: Callable[[Item], Any], failed: Failed) -> Job:
        """Take back the last change of a volume's marks, and send them; the parameters are as in `mark`.

        Raises ModuleError if there is none.
        """
        last = self._last_change(result)
        if last is None:
            raise ModuleError(_("There is no mark of this volume to undo."))
        self._undo.remove(last)
        return self._set_marks(result, last[2], done, failed)

    def can_undo(self, result: Result) -> bool:
        """Return whether `undo` has a change to take back."""
        return self._last_change(result) is not None

    def _last_change(self, result: Result) -> tuple[str, str, dict] | None:
        volume = result.volume
        key = (volume.GetID(), result.about["image"]) if volume is not None else None
        return next((change for change in reversed(self._undo) if change[:2] == key), None)

    def _set_marks(self, result: Result, value: dict, done: Callable[[Item], Any], failed: Failed) -> Job:
        """Replace the marks of a volume and send them."""
        item = _item("marks", result, value)
        set_marks(result.volume, item.image, value)
        self._add_to_history(item, False)
        self._session.pending.add(item)
        return self._send(item, done, failed)

    def send_pending(self, done: Callable[[int], Any], failed: Failed) -> Job:
        """Send everything that has not been sent to this server yet; what belongs to another server stays.

        `done` gets the number of items. If some cannot be sent, the others are, and `failed` gets the first error.
        """
        pending, client = self._session.pending, self._session.client()
        waiting = pending.items()
        own = [item for item in waiting if item.server == client.url]

        def work(job: Job) -> int:
            problem: ModuleError | None = None
            sent = 0
            with self._sending:
                for item in own or waiting:
                    job.check()
                    try:
                        pending.send(item, client)
                    except ModuleError as error:
                        problem = problem or error
                        continue
                    job.post(lambda item=item: self._add_to_history(item, True))
                    sent += 1
            if problem:
                raise problem
            return sent

        return self._session.jobs.start("Send", work, done, failed)

    def _send(
        self, item: Item, done: Callable[[Item], Any], failed: Failed, label: tuple[Any, Any] | None = None
    ) -> Job:
        """Start a job that sends an item, if there is a connection.

        It first writes a label, (mask, affine), to disk.
        """
        pending = self._session.pending
        client: Client | None = self._session.client() if self._session.connected else None

        def work(job: Job) -> Item:
            if label is not None:
                pending.add(item, *label)
            if client is None:
                raise ModuleError(
                    _("Not connected: the {item} is kept on this computer and can be sent later.").format(
                        item=item.title
                    )
                )
            with self._sending:
                if not pending.has(item):
                    return item  # replaced by a newer one
                try:
                    pending.send(item, client)
                except ModuleError as error:
                    raise ModuleError(
                        _("{error} The {item} is kept on this computer and can be sent later.").format(
                            error=error, item=item.title
                        )
                    ) from error
            return item

        def finish(sent: Item) -> None:
            self._add_to_history(sent, True)
            done(sent)

        def cancelled() -> None:
            words = _("The {item} is kept on this computer and can be sent later.")
            failed(words.format(item=item.title))

        return self._session.jobs.start("Send", work, finish, failed, cancelled=cancelled)

    def _add_to_history(self, item: Item, sent: bool) -> None:
        """Add an item to the history, in place of an older one of its kind and volume."""
        node = self._parameter_node()
        text = _("label") if item.kind == "label" else summary(item.marks or {})
        entry = {
            "time": time.strftime("%H:%M:%S"),
            "volume": item.volume,
            "kind": item.kind,
            "what": text,
            "sent": sent,
        }
        older = [old for old in history(node) if (old["volume"], old["kind"]) != (item.volume, item.kind)]
        node.SetAttribute(HISTORY, json.dumps([*older, entry]))


def history(parameter_node: Any) -> list[dict]:
    """Return what was labelled in this scene, oldest first.

    The entries are dicts of time, volume, kind, what and sent.
    """
    text = parameter_node.GetAttribute(HISTORY)
    return json.loads(text) if text else []


def _item(kind: str, result: Result, value: dict | None = None) -> Item:
    """Return a label or marks as an item; ModuleError if the volume was deleted."""
    about, volume = result.about, result.volume
    if volume is None:
        raise ModuleError(_("The volume of this map was deleted from the scene: load it again and press Detect."))
    return Item(kind, about["server"], about["image"], about["sha256"], volume.GetName(), value)
