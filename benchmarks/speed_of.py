"""Run a command for `benchmarks.speed`, and print its wall seconds and peak memory (GB) as a line of JSON.

python -m benchmarks.speed_of COMMAND ...

This module imports nothing heavy: a process starts with its parent's memory as its peak, so the parent must be small.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def main(command: list[str]) -> None:
    """Run a command and print its time and memory."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    errors = process.stderr.read() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{errors}")
    print(json.dumps({"seconds": time.perf_counter() - start, "gigabytes": usage.ru_maxrss * 1024 / 1e9}))


if __name__ == "__main__":
    main(sys.argv[1:])
