"""Limit how often an address may send requests: a token bucket for each, in bounded memory."""

from __future__ import annotations

import math
import os
import time
from collections import OrderedDict

from medclipad.errors import MedCLIPADError

RATE = "MEDCLIPAD_RATE"  # environment variable: requests per second and address; 0 for no limit
DEFAULT_RATE = 200.0  # more than one client with progress polling and thumbnails ever sends
BURST_SECONDS = 5.0  # requests of so many seconds may arrive at once
MAX_ADDRESSES = 1024  # remembered; the address that was silent longest is dropped first


class RateLimit:
    """Token bucket for each address.

    Parameters
    ----------
    rate
        Requests per second and address; 0 for no limit.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address: (tokens, time of last request)

    def __len__(self) -> int:
        """Return the number of addresses that are remembered."""
        return len(self._buckets)

    @classmethod
    def from_environment(cls) -> RateLimit:
        """Return the limit that MEDCLIPAD_RATE sets; raise MedCLIPADError if it is not a number of at least 0."""
        try:
            rate = float(os.environ.get(RATE, DEFAULT_RATE))
        except ValueError:
            rate = math.nan
        if not 0 <= rate < math.inf:
            raise MedCLIPADError(f"{RATE} must be a number of requests per second, or 0 for no limit.")
        return cls(rate)

    def wait(self, address: str) -> float:
        """Return the seconds until an address may send its next request; 0 accepts this one and counts it."""
        if not self._rate:
            return 0.0
        now, capacity = time.monotonic(), self._rate * BURST_SECONDS
        tokens, last = self._buckets.pop(address, (capacity, now))
        tokens = min(capacity, tokens + (now - last) * self._rate)
        allowed = tokens >= 1
        self._buckets[address] = (tokens - 1 if allowed else tokens, now)
        while len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._rate
