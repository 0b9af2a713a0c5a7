"""Slices to an encoder's square and maps back."""

from __future__ import annotations

import numpy as np

from medclipad.errors import VolumeError


class SquareFrame:
    """Carries (H, W) slices to `size` x `size` and maps back, without distorting the anatomy.

    A slice is padded with zeros, centred and by whole pixels, to a square in millimetres and resized; a map takes
    exactly the reverse way. Both ways are aligned at pixel centres (`align_corners=False`) and anti-aliased where they
    shrink. Values stay within the range of the input: bilinear weights are a convex mean, bicubic results are clamped.

    `pixel_spacing` is (row, column) in mm; `mode` is "bilinear" or "bicubic" and holds for `apply`.
    """

    def __init__(
        self, shape: tuple[int, int], pixel_spacing: tuple[float, float], size: int, mode: str = "bilinear"
    ) -> None:
        if mode not in ("bilinear", "bicubic"):
            raise ValueError(f"mode {mode!r} is neither 'bilinear' nor 'bicubic'")
        side = max(n * mm for n, mm in zip(shape, pixel_spacing, strict=True))
        # At least the slice itself: rounding must never crop.
        self.padded = tuple(max(n, round(side / mm)) for n, mm in zip(shape, pixel_spacing, strict=True))
        if max(self.padded) > 100 * max(shape):
            raise VolumeError(
                f"pixels of {pixel_spacing[0]:.3g} x {pixel_spacing[1]:.3g} mm in a slice of {shape[0]} x {shape[1]} "
                "are too unequal to be shown as a square; choose another plane."
            )
        self.shape, self.size, self.mode = tuple(shape), size, mode
        top, left = ((p - n) // 2 for p, n in zip(self.padded, shape, strict=True))
        self._window = (..., slice(top, top + shape[0]), slice(left, left + shape[1]))

    def apply(self, images: np.ndarray) -> np.ndarray:
        """(B, H, W) slices to (B, size, size) float32."""
        images = self._checked(images, self.shape)
        padded = np.zeros((len(images), *self.padded), dtype=np.float32)
        padded[self._window] = images
        return _resize(padded, (self.size, self.size), self.mode)

    def invert(self, maps: np.ndarray) -> np.ndarray:
        """(B, size, size) maps to (B, H, W) float32, each value at the place that `apply` took it from."""
        maps = self._checked(maps, (self.size, self.size))
        return np.ascontiguousarray(_resize(maps, self.padded, "bilinear")[self._window])

    @staticmethod
    def _checked(images: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        images = np.ascontiguousarray(images, dtype=np.float32)
        if images.ndim != 3 or images.shape[1:] != shape:
            raise ValueError(f"expected (B, {shape[0]}, {shape[1]}), got {images.shape}")
        return images


def _resize(images: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    if images.shape[1:] == size or len(images) == 0:
        return images if len(images) else np.empty((0, *size), dtype=np.float32)
    # torch is imported here only, to keep `import medclipad.volume` light.
    import torch
    from torch.nn.functional import interpolate

    batch = torch.from_numpy(images)[:, None]
    resized = interpolate(batch, size=size, mode=mode, align_corners=False, antialias=True)
    if mode == "bicubic":
        resized = torch.clamp(resized, batch.amin((2, 3), keepdim=True), batch.amax((2, 3), keepdim=True))
    return resized[:, 0].numpy()
