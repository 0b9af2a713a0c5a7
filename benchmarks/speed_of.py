"""For `benchmarks.speed`: run a command to its end; one line of JSON with its wall seconds and peak memory in GB.

python -m benchmarks.speed_of COMMAND ...

Nothing heavy is imported: a process starts with its parent's memory as its peak, so the parent must be a small one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def main(command: list[str]) -> None:
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{said}")
    print(json.dumps({"seconds": time.perf_counter() - start, "gigabytes": usage.ru_maxrss * 1024 / 1e9}))


if __name__ == "__main__":
    main(sys.argv[1:])
