"""Map slices to an encoder's square input, and anomaly maps back."""

from __future__ import annotations

import numpy as np

from medclipad.errors import VolumeError


class SquareFrame:
    """Transform between (H, W) slices and `size` x `size` images that does not distort the anatomy.

    Parameters
    ----------
    shape
        (H, W) of the slices.
    pixel_spacing
        Distance in mm between rows and between columns.
    size
        Side of the square in pixels.
    mode
        Interpolation of `apply`: "bilinear" (default) or "bicubic".

    Attributes
    ----------
    shape : tuple of int
        (H, W) of the slices.
    padded : tuple of int
        Rows and columns of a slice after padding.
    size : int
        Side of the square in pixels.
    mode : str
        Interpolation of `apply`.

    Raises
    ------
    VolumeError
        If the pixels are so unequal that the padding would exceed 100 times the slice.
    ValueError
        If the mode is unknown.

    Notes
    -----
    A slice is padded with zeros to a square in millimetres, centred and by whole pixels, and then resized; a map is
    transformed in exactly the reverse way. Both are aligned at pixel centres (`align_corners=False`) and anti-aliased
    when they shrink. Values stay within the range of the input: bilinear weights are a convex mean, bicubic results are
    clamped.

    Examples
    --------
    >>> frame = SquareFrame((10, 40), (1.0, 1.0), 40)
    >>> frame.padded
    (40, 40)
    >>> frame.apply(np.ones((2, 10, 40), np.float32)).shape
    (2, 40, 40)
    >>> frame.invert(np.ones((2, 40, 40), np.float32)).shape
    (2, 10, 40)
    """

    def __init__(
        self, shape: tuple[int, int], pixel_spacing: tuple[float, float], size: int, mode: str = "bilinear"
    ) -> None:
        if mode not in ("bilinear", "bicubic"):
            raise ValueError(f"mode {mode!r} is neither 'bilinear' nor 'bicubic'")
        rows, columns = shape
        between_rows, between_columns = pixel_spacing
        side = max(rows * between_rows, columns * between_columns)
        # At least the slice itself: rounding must never crop.
        padded = max(rows, round(side / between_rows)), max(columns, round(side / between_columns))
        if max(padded) > 100 * max(shape):
            raise VolumeError(
                f"pixels of {between_rows:.3g} x {between_columns:.3g} mm in a slice of {rows} x {columns} "
                "are too unequal to be shown as a square; choose another plane."
            )
        self.shape: tuple[int, int] = (rows, columns)
        self.padded: tuple[int, int] = padded
        self.size, self.mode = size, mode
        top, left = (padded[0] - rows) // 2, (padded[1] - columns) // 2
        self._window = (..., slice(top, top + rows), slice(left, left + columns))

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Return slices as square images.

        Parameters
        ----------
        images
            (B, H, W) values of any real dtype.

        Returns
        -------
        numpy.ndarray
            (B, size, size) float32.

        Raises
        ------
        ValueError
            If the images have another shape.
        """
        images = self._checked(images, self.shape)
        padded = np.zeros((len(images), *self.padded), dtype=np.float32)
        padded[self._window] = images
        return _resize(padded, (self.size, self.size), self.mode)

    def invert(self, maps: np.ndarray) -> np.ndarray:
        """Return square maps on the slices' own pixels, each value where `apply` took it from.

        Parameters
        ----------
        maps
            (B, size, size) values of any real dtype.

        Returns
        -------
        numpy.ndarray
            (B, H, W) float32.

        Raises
        ------
        ValueError
            If the maps have another shape.
        """
        maps = self._checked(maps, (self.size, self.size))
        return np.ascontiguousarray(_resize(maps, self.padded, "bilinear")[self._window])

    @staticmethod
    def _checked(images: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Return a batch of images as float32; raise ValueError if it has another shape."""
        images = np.ascontiguousarray(images, dtype=np.float32)
        if images.ndim != 3 or images.shape[1:] != shape:
            raise ValueError(f"expected (B, {shape[0]}, {shape[1]}), got {images.shape}")
        return images


def _resize(images: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    """Return (B, H, W) float32 images resized to `size`, anti-aliased, within their own range."""
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
