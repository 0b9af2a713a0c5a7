"""How often a client may ask: a token bucket per address, in bounded memory."""

from __future__ import annotations

import math
import os
import time
from collections import OrderedDict

from medclipad.errors import MedCLIPADError

RATE = "MEDCLIPAD_RATE"  # environment variable: requests per second and address; 0 for no limit
DEFAULT_RATE = 200.0  # what one eager client with progress polling and thumbnails never reaches
BURST = 5.0  # seconds' worth that may come at once
_ADDRESSES = 1024  # remembered; the one that was silent longest is forgotten first


class RateLimit:
    """`wait(address)` says how long a client has to wait, 0 if it may go on."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address: (tokens, when)

    @classmethod
    def from_environment(cls) -> RateLimit:
        """With the rate of the environment variable; MedCLIPADError if it is no number from 0 on."""
        try:
            rate = float(os.environ.get(RATE, DEFAULT_RATE))
        except ValueError:
            rate = math.nan
        if not 0 <= rate < math.inf:
            raise MedCLIPADError(f"{RATE} must be a number of requests per second, or 0 for no limit.")
        return cls(rate)

    def wait(self, address: str) -> float:
        """Seconds until the next request of `address` is taken; 0 takes it now and counts it."""
        if not self._rate:
            return 0.0
        now, full = time.monotonic(), self._rate * BURST
        tokens, before = self._buckets.pop(address, (full, now))
        tokens = min(full, tokens + (now - before) * self._rate)
        allowed = tokens >= 1
        self._buckets[address] = (tokens - 1 if allowed else tokens, now)
        while len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._rate
