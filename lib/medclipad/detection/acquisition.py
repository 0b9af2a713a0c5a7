"""Whether a volume was acquired as those learned from: else its map says more of the scanner than of the body.

A volume is described as a whole, by the encoder's early features (which follow sharpness, noise and contrast) and by
the brightness of the body, each as the median over some slices, so that a lesion in a few of them changes little. It is
unusual if it is much farther from every volume that was learned from than these are from each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from medclipad.detection.slice_frames import FramedVolume
from medclipad.encoders import ImageEncoder
from medclipad.methods.base import as_rgb

SLICES = 12  # of a volume that are described
MIN_SCANS = 3  # with fewer, nothing is known about how far apart usual volumes are
MARGIN = 1.25  # times the largest distance of a learned volume from its nearest neighbour
THICKNESS_RATIO = 2.0  # of slice spacings that are no longer alike
_STAGES = 2  # of the encoder, from the first
_WIDTH = 64  # of the random projection that keeps distances (Johnson and Lindenstrauss) and makes files small
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_RING = 0.1  # share of the slices at either end that is not described


class AcquiredScan(BaseModel):
    """How a volume was acquired.

    Attributes
    ----------
    features
        Projection of the encoder's early features.
    brightness
        Quantiles of the body's brightness between black and white.
    slice_spacing
        mm between slices.
    """

    model_config = ConfigDict(extra="forbid")

    features: list[float] = Field(description="projection of the encoder's early features")
    brightness: list[float] = Field(description="quantiles of the body's brightness")
    slice_spacing: float = Field(gt=0, description="mm between slices")


class Acquisition(BaseModel):
    """How the volumes that were learned from were acquired.

    Attributes
    ----------
    scans
        A description of each; empty where pictures or fewer than three volumes were learned from.
    """

    model_config = ConfigDict(extra="forbid")

    scans: list[AcquiredScan] = Field(default=[], description="how the learned volumes were acquired")

    def warnings(self, scan: AcquiredScan | None) -> tuple[str, ...]:
        """Return why a volume is unlike those that were learned from, in sentences; none if it is like them."""
        if scan is None or len(self.scans) < MIN_SCANS:
            return ()
        sentences = []
        spacings = [known.slice_spacing for known in self.scans]
        ratio = max(scan.slice_spacing / max(spacings), min(spacings) / scan.slice_spacing)
        if ratio > THICKNESS_RATIO:
            sentences.append(
                f"Slices {scan.slice_spacing:.3g} mm apart, but learned from {_range(spacings)} mm: no verdict is "
                "given."
            )
        unlike = [
            words
            for words, part in (("sharpness, noise or sequence", "features"), ("contrast", "brightness"))
            if _is_far([getattr(known, part) for known in self.scans], getattr(scan, part))
        ]
        if unlike:
            sentences.append(
                f"Unusual acquisition ({' and '.join(unlike)}): unlike all {len(self.scans)} volumes that the detector "
                "learned from, so no verdict is given."
            )
        return tuple(sentences)


def describe_volume(encoder: ImageEncoder, framed: FramedVolume) -> AcquiredScan | None:
    """Return how a volume was acquired; None for one with fewer than 12 slices, of which a lesion may fill most."""
    analysed = framed.analysed
    if len(analysed) < SLICES:
        return None
    at = np.linspace(_RING, 1 - _RING, SLICES) * (len(analysed) - 1)
    numbers = analysed[at.round().astype(int)]
    images = framed.images(numbers)
    mean, std = (torch.tensor(value, device=encoder.device)[:, None, None] for value in (encoder.mean, encoder.std))
    with torch.inference_mode():
        taps = [encoder.taps((rgb - mean) / std, 0) for rgb in as_rgb(images, encoder.device).split(encoder.batch)]
    parts = []
    for level in list(zip(*taps, strict=True))[:_STAGES]:
        tokens = torch.cat(level)[:, encoder.n_prefix :].float()
        for moment in (tokens.mean(dim=1), tokens.std(dim=1)):
            typical = moment.median(dim=0).values
            parts.append(typical / typical.norm().clamp_min(1e-12))
    features = torch.cat(parts).cpu().numpy()
    projection = np.random.default_rng(0).normal(size=(len(features), _WIDTH)) / np.sqrt(_WIDTH)
    body = [image[image > 0] for image in images if (image > 0).any()]
    brightness = np.median([np.quantile(values, _QUANTILES) for values in body], axis=0)
    return AcquiredScan(
        features=(features @ projection).round(5).tolist(),
        brightness=brightness.round(4).tolist(),
        slice_spacing=round(framed.volume.spacing[framed.slicing.axis], 4),
    )


def _is_far(known: Sequence[Sequence[float]], one: Sequence[float]) -> bool:
    points = np.array(known)
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(apart, np.inf)
    return bool(np.linalg.norm(points - one, axis=1).min() > MARGIN * apart.min(axis=1).max())


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"
