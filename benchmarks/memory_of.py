"""Peak memory of one volume, for `benchmarks.memory`: python -m benchmarks.memory_of VOLUME DETECTOR"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

from benchmarks.memory import peak, small_head, start_peak
from medclipad.detection.detector import load_detector
from medclipad.volume import memory_budget, read_volume
from medclipad.volume.readers import nifti


def main(path: str, folder: str) -> None:
    detector = load_detector(folder)
    detector.detect(small_head())  # the encoder's own memory, for a batch of slices
    program = start_peak()
    said: list[float] = []
    check = memory_budget.require_memory
    nifti.require_memory = lambda needed, who, work: said.append(needed) or check(needed, who, work)
    volume = read_volume(path)
    read = peak()
    detector.detect(replace(volume, modality="MR"))
    found = {
        "shape": volume.shape,
        "read_said": said[0] / 1e6,
        "read_peak": read - program,
        "detect_said": (detector.memory_for(volume) + volume.array.nbytes) / 1e6,
        "detect_peak": peak() - program,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
