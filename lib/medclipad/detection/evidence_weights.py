"""Learn from outlined lesions how much the map and the brightness count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from medclipad.detection.detector import RawDetection
from medclipad.detection.evidence import Evidence
from medclipad.detection.slice_selection import OutlinedSlices

MAX_VOLUMES = 12  # bounds the time
MAX_VOXELS = 8000  # of the outlined and of the normal slices of a volume each


def learn_weights(
    evidence: Evidence,
    outlined: Sequence[OutlinedSlices],
    seen_as_new: Callable[[OutlinedSlices], tuple[RawDetection, Evidence]],
) -> Evidence:
    """Return the evidence with the weights of a logistic regression over voxels; as it was, without outlined slices.

    Parameters
    ----------
    evidence
        Evidence that knows what is usual.
    outlined
        Volumes with outlined slices; at most 12 are looked at.
    seen_as_new
        Returns what the method says of such a volume, and the evidence that does not rest on it.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second, and most fits have no outlines

    rng = np.random.default_rng(0)
    features, lesions = [], []
    for number in np.unique(np.linspace(0, len(outlined) - 1, MAX_VOLUMES).round().astype(int)) if outlined else ():
        part = outlined[number]
        raw, others = seen_as_new(part)
        every = others.parts(raw.map, part.framed, raw.seen)
        for slices in (part.slices, part.normal):
            places = np.flatnonzero(raw.seen & part.framed.flags(slices))
            drawn = rng.choice(places, min(len(places), MAX_VOXELS), replace=False)
            features.append(np.stack([values.ravel()[drawn] for values in every], axis=1))
            lesions.append(part.mask.ravel()[drawn])
    if not lesions or not 0 < np.concatenate(lesions).mean() < 1:
        return evidence
    fitted = LogisticRegression(max_iter=1000).fit(np.concatenate(features), np.concatenate(lesions))
    return replace(evidence, weights=tuple(map(float, fitted.coef_[0])), constant=float(fitted.intercept_[0]))
