"""Counts of requests and the state of the server, in the text format of Prometheus; nothing in it names a patient."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

BUCKETS = (0.01, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0)
"""Upper ends of the classes of durations, in seconds."""

Labels = tuple[tuple[str, str], ...]


class RequestMetrics:
    """Requests that were answered, by method, route and status, and how long they took. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[Labels] = Counter()
        self._buckets: Counter[tuple[str, float]] = Counter()  # by route and upper end, cumulative
        self._seconds: dict[str, float] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Parameters
        ----------
        method, route
            Method, and pattern of the path, such as "/infer/{model}"; "-" for none.
        status
            HTTP status of the answer; 0 if the client went away.
        seconds
            Time until the answer was sent.
        """
        with self._lock:
            self._requests[("method", method), ("route", route), ("status", str(status))] += 1
            self._seconds[route] = self._seconds.get(route, 0.0) + seconds
            for end in (*BUCKETS, float("inf")):
                self._buckets[route, end] += seconds <= end

    def lines(self) -> list[str]:
        """Return the counts as lines of the text format."""
        with self._lock:
            lines = ["# TYPE medclipad_requests_total counter"]
            lines += [_line("medclipad_requests_total", count, key) for key, count in self._requests.items()]
            lines.append("# TYPE medclipad_request_seconds histogram")
            for (route, end), count in self._buckets.items():
                upper = "+Inf" if end == float("inf") else f"{end:g}"
                lines.append(_line("medclipad_request_seconds_bucket", count, (("route", route), ("le", upper))))
            for route, seconds in self._seconds.items():
                label = (("route", route),)
                lines.append(_line("medclipad_request_seconds_sum", round(seconds, 6), label))
                lines.append(_line("medclipad_request_seconds_count", self._buckets[route, float("inf")], label))
        return lines


REQUESTS = RequestMetrics()
"""The requests of this process."""


def gauges(values: Mapping[str, float]) -> list[str]:
    """Return numbers by name as lines of the text format.

    Examples
    --------
    >>> gauges({"images": 3})
    ['# TYPE medclipad_images gauge', 'medclipad_images 3']
    """
    lines = []
    for name, value in values.items():
        lines += [f"# TYPE medclipad_{name} gauge", _line(f"medclipad_{name}", value)]
    return lines


def _line(name: str, value: float, labels: Labels = ()) -> str:
    text = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels)
    return f"{name}{{{text}}} {value:g}" if text else f"{name} {value:g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
