"""Map values in words: how rare they are among voxels of normal scans.

A value of 0.2 is reached by 1 in 10 of them, 0.4 by 1 in 100, 0.6 by 1 in 1,000, 0.8 by 1 in 10,000. Values above the
top of a detector's scale occur in none of its normal scans.
"""

from __future__ import annotations

from slicer.i18n import tr as _

UNCALIBRATED = 1.0  # top of a scale that was not compared with normal scans: its values are plain numbers
_DECADES = 5  # of rarity that a value of 1 stands for


def one_in(value: float) -> str:
    """Return the rarity of a map value, such as "1 in 1,000", rounded to one significant digit."""
    count = int(float(f"{10 ** (_DECADES * value):.0e}"))
    return _("1 in {count}").format(count=f"{count:,}")


def rarity(value: float, top: float, scans: int) -> str:
    """Return a map value in words.

    Parameters
    ----------
    value : float
        The value, 0 to 1.
    top : float
        Top of the detector's scale; 1 if it is not calibrated: the words are then the number itself.
    scans : int
        Number of normal scans that the scale rests on; 0 if not known.
    """
    if top >= UNCALIBRATED:
        return f"{value:.3f}"
    if value <= top:
        return one_in(value)
    if scans == 0:
        return _("never seen")
    if scans == 1:
        return _("never seen in 1 normal scan")
    return _("never seen in {count} normal scans").format(count=scans)
