"""One fit in a process of its own, for `benchmarks.cohort_scale`.

python -m benchmarks.cohort_scale_of FOLDER files|memory
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.memory import peak
from medclipad.detection.cases import CaseSources
from medclipad.detection.fit import fit
from medclipad.volume import read_volume

OPTIONS = {"planes": "axial", "image_size": 64, "shots": 32}


def main(folder: str, how: str) -> None:
    """Fit on the volumes of a folder, given as files or held in memory; print seconds and peak in MB as JSON."""
    start = time.perf_counter()
    files = sorted(Path(folder).iterdir())
    normal: CaseSources = [read_volume(file) for file in files] if how == "memory" else files
    fit(normal=normal, **OPTIONS)
    print(json.dumps({"seconds": round(time.perf_counter() - start, 1), "peak_mb": round(peak())}))


if __name__ == "__main__":
    main(*sys.argv[1:])
