"""Peak memory of one volume, for `benchmarks.memory`.

python -m benchmarks.memory_of VOLUME DETECTOR
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

from benchmarks.memory import peak, small_head, start_peak
from medclipad.detection.detector import load_detector
from medclipad.volume import memory_budget, read_volume
from medclipad.volume.readers import nifti


def main(path: str, folder: str) -> None:
    """Print estimates and peaks in MB as a line of JSON."""
    detector = load_detector(folder)
    detector.detect(small_head())  # the encoder's own memory, for a batch of slices
    program = start_peak()
    estimates: list[float] = []

    def require_memory(needed: float, name: str, work: str) -> None:
        estimates.append(needed)
        memory_budget.require_memory(needed, name, work)

    nifti.require_memory = require_memory
    volume = read_volume(path)
    read = peak()
    detector.detect(replace(volume, modality="MR"))
    row = {
        "shape": volume.shape,
        "read_estimate": estimates[0] / 1e6,
        "read_peak": read - program,
        "detect_estimate": (detector.memory_for(volume) + volume.array.nbytes) / 1e6,
        "detect_peak": peak() - program,
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main(*sys.argv[1:])
