"""Results under the names of anomalib 2, so that its metrics and its visualiser work on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medclipad.compat import ensure_torchvision
from medclipad.errors import MedCLIPADError
from medclipad.evaluation.drawn_case import DrawnCase
from medclipad.volume import require_same_grid, to_unit

if TYPE_CHECKING:
    from anomalib.data import ImageBatch  # pyright: ignore[reportMissingImports]  # in an environment of its own
    from torch import Tensor

    from medclipad.detection.result import AnomalyResult
    from medclipad.volume import Volume


def to_fields(result: AnomalyResult, volume: Volume, mask: Volume | None = None) -> dict[str, Tensor]:
    """Return the analysed slices of a result, under the names of anomalib's fields.

    Parameters
    ----------
    result
        What the detector found.
    volume
        The volume that was analysed.
    mask
        Its ground truth on the same grid, non-zero where abnormal.

    Returns
    -------
    dict of str to Tensor
        n analysed slices of (H, W) pixels, in the order of the slices:

        - `image`, float32 (n, 3, H, W) in [0, 1], in the grey window that the detector saw;
        - `anomaly_map`, float32 (n, H, W) in [0, 1];
        - `pred_score`, float32 (n,) in [0, 1], the slice scores;
        - `pred_mask`, bool (n, H, W), the regions, as `AnomalyResult.segmentation` draws them;
        - `pred_label`, bool (n,), whether the score exceeds the slice limit;
        - with a mask, `gt_mask`, bool (n, H, W), and `gt_label`, bool (n,).

    Raises
    ------
    MedCLIPADError
        If no slice was analysed.
    VolumeError
        If the grids differ.
    """
    import torch  # takes seconds, which a look at the module's help need not

    for other in (volume, mask):
        if other is not None:
            require_same_grid(result.anomaly_map, other)
    analysed = np.flatnonzero(np.isfinite(result.slice_scores))
    if not len(analysed):
        raise MedCLIPADError(f"No slice of {volume.name or 'the volume'} was analysed: there is nothing to hand over.")

    def slices(array: np.ndarray) -> Tensor:
        return torch.from_numpy(result.slicing.slices(array)[analysed])  # an index copies: no view of the volume

    grey = torch.from_numpy(to_unit(slices(volume.array).numpy(), *DrawnCase(volume, result).grey_window))
    score = torch.from_numpy(result.slice_scores[analysed])
    fields = {
        "image": grey[:, None].repeat(1, 3, 1, 1),
        "anomaly_map": slices(result.anomaly_map.array),
        "pred_score": score.float(),
        "pred_mask": slices(result.segmentation().array).bool(),
        "pred_label": score > result.slice_limit,
    }
    if mask is not None:
        truth = slices(mask.array != 0)
        fields |= {"gt_mask": truth, "gt_label": truth.flatten(1).any(dim=1)}
    return fields


def to_image_batch(result: AnomalyResult, volume: Volume, mask: Volume | None = None) -> ImageBatch:
    """Return the analysed slices of a result as anomalib's `ImageBatch`, one item a slice.

    Parameters
    ----------
    result, volume, mask
        As in `to_fields`.

    Raises
    ------
    MedCLIPADError
        If anomalib is not installed, or no slice was analysed.
    VolumeError
        If the grids differ.

    Examples
    --------
    >>> from anomalib.metrics import AUROC  # doctest: +SKIP
    >>> auroc = AUROC(fields=["anomaly_map", "gt_mask"])  # doctest: +SKIP
    >>> auroc.update(to_image_batch(result, volume, mask))  # doctest: +SKIP
    """
    ensure_torchvision()  # anomalib imports it
    try:
        from anomalib.data import ImageBatch  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise MedCLIPADError(
            'anomalib is not installed: install it beside medclipad with pip install "anomalib>=2.7".'
        ) from error
    return ImageBatch(**to_fields(result, volume, mask))
