"""Results: the map in the views, slices and their scores, suspicious regions."""

from __future__ import annotations

from typing import Any

import numpy as np
import qt
from slicer.i18n import tr as _

from MedCLIPADLib import navigation, overlay
from MedCLIPADLib.panels.base import Panel, fill_combo, fill_table
from MedCLIPADLib.plots import mark_current, show_chart, slice_of_point, store_scores
from MedCLIPADLib.regions import Region, side_in_words, stored_regions
from MedCLIPADLib.results import CHART, SERIES, Result
from MedCLIPADLib.volumes import RESULT

_SAME = 1e-3  # difference of two thresholds that the slider, with three decimals, cannot show
_FRACTIONS = {"0.125": "1/8", "0.25": "1/4", "0.5": "1/2"}  # how numbers of false regions are written
SETTLE_TIME = 300  # ms without a change of the threshold, after which the regions are listed again


class ResultsPanel(Panel):
    """The section Results.

    Attributes
    ----------
    regions : list of Region
        The regions in the table.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        ui = self.ui
        for selector in (ui.resultSelector, ui.compareSelector):
            selector.addAttribute("vtkMRMLScalarVolumeNode", RESULT)
        self._shown = ""  # id of the map that the widgets show
        self._limit: float | None = None  # of the peaks of the regions in the table
        self.regions: list[Region] = []
        self._settle_timer = qt.QTimer()
        self._settle_timer.setSingleShot(True)
        self._settle_timer.setInterval(SETTLE_TIME)
        self._settle_timer.connect("timeout()", self.list_regions)
        self.on_click(ui.resetThresholdButton, self.reset_threshold)
        self.on_click(ui.showPlotButton, self.show_plot)
        self.on_click(ui.nextPeakButton, self.next_peak)
        self.on_click(ui.previousPeakButton, self.previous_peak)
        ui.sliceSlider.connect("valueChanged(int)", self._slid)
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

    # --- a new or another map ---
    def show_new(self, result: Result) -> None:
        """Select a new map and show it at its most suspicious slice, with its plot."""
        overlay.show(result, self.parameters.opacity)
        navigation.align_views(result)
        result.set_threshold(result.outline(self.parameters.falseRegions))
        self.parameters.result = result.node
        self.ui.resultSelector.setCurrentNode(result.node)
        self.session.jobs.post(lambda: self.guarded(self.show_plot))  # in a later turn: it may create a view
        scores = result.slice_scores
        if np.isfinite(scores).any():
            navigation.jump_to_slice(result, int(np.nanargmax(scores)))

    def update(self) -> None:
        """Show the selected map with the current parameters."""
        result = self.result
        if result is None:
            self._shown = ""
            self._show_nothing()
            return
        if self._shown != result.node.GetID():
            self._shown = result.node.GetID()
            self._changed_map(result)
        self._show_map(result)

    def _show_nothing(self) -> None:
        ui = self.ui
        for label in (ui.verdictTextLabel, ui.warningsLabel, ui.resultLabel, ui.sliceLabel, ui.regionsLabel):
            label.text = ""
        ui.verdictTextLabel.visible = ui.warningsLabel.visible = False
        self.regions = []
        self._fill_regions([])
        fill_combo(ui.falseRegionsComboBox, [], "")
        self._enable_controls(False)

    def _enable_controls(self, enabled: bool) -> None:
        ui = self.ui
        for widget in (
            ui.nextPeakButton,
            ui.previousPeakButton,
            ui.sliceSlider,
            ui.showPlotButton,
            ui.resetThresholdButton,
            ui.falseRegionsComboBox,
        ):
            widget.enabled = enabled

    def _changed_map(self, result: Result) -> None:
        """Show another map than before, or one of a scene that was just loaded."""
        ui = self.ui
        result.restore_colours()
        result.legend.SetVisibility(False)  # `_show_map` switches it on once the map is shown
        if self.parameters.threshold != result.threshold:
            self.parameters.threshold = result.threshold
        slider = ui.sliceSlider
        was = slider.blockSignals(True)
        slider.maximum = len(result.slicing) - 1
        slider.blockSignals(was)
        self._enable_controls(True)
        self._show_verdict(result)
        self.module.observe_views()
        self.show_slice()
        self._limit = self.limit
        stored = stored_regions(result, self._limit)
        if stored is None:
            self._settle_timer.start()
        else:
            self._show_regions(result, stored)

    def _show_verdict(self, result: Result) -> None:
        """Show the verdict, cautions, and how they came about."""
        ui, about = self.ui, result.about
        ui.verdictTextLabel.text = result.verdict
        ui.verdictTextLabel.visible = True
        warnings = " ".join(result.warnings)
        ui.warningsLabel.text = _("Caution: {warnings}").format(warnings=warnings) if warnings else ""
        ui.warningsLabel.visible = bool(warnings)
        score = about.get("volume_score")
        no_score = _("No slice contains enough tissue to score")
        parts = [
            _("Volume score {score}").format(score=f"{score:.3f}") if score is not None else no_score,
            _("{plane} slices").format(plane=about["plane"]),
            _("detector {name}").format(name=about["detector"]),
        ]
        promise = "" if result.promise in result.verdict else result.promise
        ui.resultLabel.text = _("{parts}. {promise}").format(parts=", ".join(parts), promise=promise).strip()

    def _show_map(self, result: Result) -> None:
        """Update the scene to the parameters; what already agrees is not touched."""
        parameters = self.parameters
        if abs(result.threshold - parameters.threshold) > 1e-9:
            result.set_threshold(parameters.threshold)
            self._settle_timer.start()
        self._show_rates(result)
        if self._limit != self.limit:
            self._limit = self.limit
            self.list_regions()
        if not self.module.compare.active:
            overlay.show(result, parameters.opacity, parameters.showMap)
        for other in Result.all():
            selected = other.node is result.node
            other.show_3d(parameters.show3D and selected)
            visible, legend = parameters.showLegend and parameters.showMap and selected, other.legend
            if legend is not None and bool(legend.GetVisibility()) != visible:
                legend.SetVisibility(visible)

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

    # --- slices ---
    def show_plot(self) -> None:
        """Show the plot of score against slice.

        It is made here, in a turn of its own of the event loop, so that a new map is shown without a halt.
        """
        result = self.require_result()
        show_chart(result.reference(CHART) or store_scores(result))
        mark_current(result, navigation.current_slice(result))
        self.module.observe_plots()

    def plot_clicked(self, chart: Any, position: float) -> None:
        """Move the views to the slice at a position of the plot's horizontal axis."""
        result = self.result
        if result is not None and chart is result.reference(CHART):
            number = round(position)
            if 0 <= number < len(result.slicing):
                navigation.jump_to_slice(result, number)

    def points_selected(self, series: Any, rows: Any) -> None:
        """Move the views to the slice of a selected point.

        Parameters
        ----------
        series : vtkStringArray
            Ids of the series with selected points.
        rows : vtkCollection
            Rows of the selected points, a vtkIdTypeArray for each series.
        """
        result = self.result
        own = result.reference(SERIES) if result is not None else None
        if result is None or own is None:
            return
        for position in range(series.GetNumberOfValues()):
            selected = rows.GetItemAsObject(position)
            if series.GetValue(position) == own.GetID() and selected.GetNumberOfValues():
                number = slice_of_point(result, int(selected.GetValue(0)))
                if number is not None:
                    navigation.jump_to_slice(result, number)

    def _slid(self, number: int) -> None:
        if self.result is not None:
            navigation.jump_to_slice(self.result, number)

    def step(self, by: int) -> None:
        """Move the views by a number of slices."""
        result = self.require_result()
        current = navigation.current_slice(result)
        number = (0 if current is None else current) + by
        if 0 <= number < len(result.slicing):
            navigation.jump_to_slice(result, number)

    def next_peak(self) -> None:
        """Move the views to the next suspicious slice."""
        self._to_peak(1)

    def previous_peak(self) -> None:
        """Move the views to the previous suspicious slice."""
        self._to_peak(-1)

    def _to_peak(self, step: int) -> None:
        result = self.require_result()
        number = navigation.next_peak(result.slice_scores, navigation.current_slice(result), step)
        if number is None:
            self.say(_("No slice stands out: all scores are similar."))
        else:
            navigation.jump_to_slice(result, number)

    def show_slice(self) -> None:
        """Show which slice the views are at, and its score."""
        result = self.result
        if result is None:
            return
        number = navigation.current_slice(result)
        mark_current(result, number)
        if number is None:
            self.ui.sliceLabel.text = _("outside")
            return
        score = result.slice_scores[number]
        self.ui.sliceLabel.text = f"{number}: " + (_("skipped") if np.isnan(score) else f"{score:.3f}")
        was = self.ui.sliceSlider.blockSignals(True)
        self.ui.sliceSlider.value = number
        self.ui.sliceSlider.blockSignals(was)

    # --- regions ---
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
                side_in_words(region.side),
                f"{region.first}-{region.last}",
                result.in_words(region.peak),
            )
            for number, region in enumerate(regions)
        ]
        self._fill_regions(rows)

    def _fill_regions(self, rows: list[tuple]) -> None:
        titles = ["", _("ml"), _("Side"), _("Slices"), _("Peak")]
        fill_table(self.ui.regionsTable, titles, rows)

    def show_region(self, row: int) -> None:
        """Move the views to the peak of a region in the table."""
        if 0 <= row < len(self.regions):
            navigation.jump(self.require_result(), self.regions[row].ijk)
