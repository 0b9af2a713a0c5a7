"""The suspicious regions of the section Results, and the number of false ones that the reader accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedCLIPADLib import navigation, snapshot
from MedCLIPADLib.panels.base import Panel, chosen_path, fill_combo, fill_table, say_why
from MedCLIPADLib.points import place_points
from MedCLIPADLib.regions import Region, side_in_words
from MedCLIPADLib.results import Result

_SAME = 1e-3  # difference of two thresholds that the slider, with three decimals, cannot show
_FRACTIONS = {"0.125": "1/8", "0.25": "1/4", "0.5": "1/2"}  # how numbers of false regions are written
SETTLE_TIME = 300  # ms without a change of the threshold, after which the regions are listed again


class RegionList(Panel):
    """The table of regions.

    Attributes
    ----------
    regions : list of Region
        The regions in the table.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        ui = self.ui
        self._limit: float | None = None  # of the peaks of the regions in the table
        self.regions: list[Region] = []
        self._settle_timer = qt.QTimer()
        self._settle_timer.setSingleShot(True)
        self._settle_timer.setInterval(SETTLE_TIME)
        self._settle_timer.connect("timeout()", self.list_regions)
        self.on_click(ui.pointsButton, self.place_points)
        self.on_click(ui.snapshotButton, self.save_snapshot)
        ui.falseRegionsComboBox.connect("currentIndexChanged(int)", self._choose_rate)
        ui.regionsTable.connect(
            "cellClicked(int,int)", lambda row, _column: self.guarded(lambda: self.show_region(row))
        )

    @property
    def settled(self) -> bool:
        """Whether the regions are those of the threshold, or are being computed."""
        return not self._settle_timer.active

    @property
    def limit(self) -> float | None:
        """Map value that the peak of a region must exceed, by the reader's choice; None if there is no limit."""
        return self.require_result().limit(self.parameters.falseRegions)

    def reset_threshold(self) -> None:
        """Set the threshold to the standard one."""
        self.parameters.threshold = self.require_result().outline(self.parameters.falseRegions)

    # --- false alarms ---
    def _show_rates(self, result: Result) -> None:
        """Offer the numbers of false regions that the detector's normal scans support."""
        combo, limits = self.ui.falseRegionsComboBox, result.region_limits
        entries = [(_FRACTIONS.get(rate, rate), rate) for rate in limits]
        words = _(
            "How many regions a normal scan has above the limit, on average. The table and Make segmentation take only "
            "regions whose peak exceeds the limit; the threshold does not change it. {promise}"
        )
        if not entries:
            entries = [(_("not available: too few normal scans"), "")]
            words = _("Not available: all regions above the threshold are listed. {promise}")
        fill_combo(combo, entries, result.rate(self.parameters.falseRegions))
        combo.enabled = bool(limits)
        combo.toolTip = words.format(promise=result.promise)

    def _choose_rate(self, index: int) -> None:
        """Choose a number of false regions; the standard threshold goes with it, the reader's own stays."""
        result, parameters = self.result, self.parameters
        if result is None or index < 0:
            return
        standard = abs(parameters.threshold - result.outline(parameters.falseRegions)) < _SAME
        parameters.falseRegions = self.ui.falseRegionsComboBox.itemData(index)
        if standard:
            self.reset_threshold()

    # --- regions ---
    def list_regions_soon(self) -> None:
        """List the regions once threshold and limit have rested for a moment."""
        say_why(self.ui.pointsButton, _("The list of regions is being made."))
        self._settle_timer.start()

    def list_regions(self) -> None:
        """List the regions above the current threshold and the limit."""
        result = self.result
        if result is not None:
            self.ui.regionsLabel.text = _("Finding regions...")
            done = lambda regions: self._show_regions(result, regions)  # noqa: E731
            self.module.analysis.regions(result, self.limit, done, self.fail)

    def _show_regions(self, result: Result, regions: list[Region]) -> None:
        if self.result is None or self.result.node is not result.node:
            return  # another map was selected meanwhile
        self.regions = regions
        none = _("There is no region: lower the threshold, or allow more false regions per scan.")
        say_why(self.ui.pointsButton, "" if regions else none)
        if not regions:
            words = _("No regions.")
        elif self._limit is None:
            several = _("{count} regions above the threshold, {volume} ml.")
            words = several if len(regions) > 1 else _("1 region above the threshold, {volume} ml.")
        else:
            several = _("{count} regions above the limit ({rarity}), {volume} ml.")
            words = several if len(regions) > 1 else _("1 region above the limit ({rarity}), {volume} ml.")
        self.ui.regionsLabel.text = words.format(
            count=len(regions),
            rarity="" if self._limit is None else result.in_words(self._limit),
            volume=f"{sum(region.volume for region in regions):.1f}",
        )
        rows = [
            (
                number + 1,
                f"{region.volume:.2f}",
                f"{region.extent:.0f}",
                side_in_words(region.side),
                f"{region.first}-{region.last}",
                result.in_words(region.peak),
            )
            for number, region in enumerate(regions)
        ]
        self._fill_regions(rows)

    def _fill_regions(self, rows: list[tuple]) -> None:
        titles = ["", _("ml"), _("mm"), _("Side"), _("Slices"), _("Peak")]
        fill_table(self.ui.regionsTable, titles, rows)

    def place_points(self) -> None:
        """Put a point at the peak of each region in the table."""
        node = place_points(self.require_result(), self.regions)
        self.say(_("{name}: a point at the peak of each region.").format(name=node.GetName()))

    def save_snapshot(self) -> None:
        """Save the shown slice with its region in words, in a file that the reader names."""
        result = self.require_result()
        window, kinds = slicer.util.mainWindow(), _("PNG (*.png);;DICOM (*.dcm)")
        chosen = chosen_path(qt.QFileDialog.getSaveFileName(window, _("Save snapshot"), "finding.png", kinds))
        if not chosen:
            return
        path = Path(chosen)
        if path.suffix.lower() not in (".png", ".dcm"):
            path = path.with_name(f"{path.name}.png")
        row = self.shown_row(result)
        text = snapshot.caption(result, None if row is None else self.regions[row], 0 if row is None else row + 1)
        snapshot.save(result, text, path)
        self.say(_("Saved as {path}.").format(path=path))

    def shown_row(self, result: Result) -> int | None:
        """Return the row of the region in the current slice: the chosen one, or else the largest; None without one."""
        current = navigation.current_slice(result)
        if current is None:
            return None
        rows = [row for row, region in enumerate(self.regions) if region.first <= current <= region.last]
        chosen = self.ui.regionsTable.currentRow()
        return chosen if chosen in rows else next(iter(rows), None)

    def show_region(self, row: int) -> None:
        """Move the views to the peak of a region in the table."""
        if 0 <= row < len(self.regions):
            navigation.jump(self.require_result(), self.regions[row].ijk)
