"""Synthetic anomalies on normal images: the training data of MediCLIP (Zhang et al. 2024, section 2.4).

Every random number comes from the `rng` that is passed in, through the methods of `numpy.random.Generator`. So equal
seeds give equal anomalies, and an object that returns recorded numbers repeats a recorded anomaly.
"""

from __future__ import annotations

from medclipad.methods.mediclip.synthesis.cutpaste import CutPaste
from medclipad.methods.mediclip.synthesis.identity import Identity
from medclipad.methods.mediclip.synthesis.intensity_change import GaussIntensityChange
from medclipad.methods.mediclip.synthesis.mixture import MIXTURES, AnomalySynthesis
from medclipad.methods.mediclip.synthesis.source import Source
from medclipad.methods.mediclip.synthesis.task import MINIMUM_SIZE, VARIANTS, Task

__all__ = [
    "MINIMUM_SIZE",
    "MIXTURES",
    "VARIANTS",
    "AnomalySynthesis",
    "CutPaste",
    "GaussIntensityChange",
    "Identity",
    "Source",
    "Task",
]
