"""Results: the map in the views, slices and their scores, suspicious regions."""

from __future__ import annotations

from typing import Any

import numpy as np
import qt
from slicer.i18n import tr as _

from MedCLIPADLib import navigation, overlay
from MedCLIPADLib.panels.base import Panel, fill_table
from MedCLIPADLib.plots import show_chart, slice_of_point, store_scores
from MedCLIPADLib.regions import Region, stored_regions
from MedCLIPADLib.results import CHART, REGIONS, SERIES, Result
from MedCLIPADLib.volumes import RESULT

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
        ui.regionsTable.connect(
            "cellClicked(int,int)", lambda row, _column: self.guarded(lambda: self.show_region(row))
        )

    @property
    def settled(self) -> bool:
        """Whether the regions are those of the threshold, or are being computed."""
        return not self._settle_timer.active

    # --- a new or another map ---
    def show_new(self, result: Result) -> None:
        """Select a new map and show it at its most suspicious slice, with its plot."""
        overlay.show(result, self.parameters.opacity)
        navigation.align_views(result)
        self.parameters.threshold = result.threshold
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
        ui.resultLabel.text = ui.sliceLabel.text = ui.regionsLabel.text = ""
        self.regions = []
        self._fill_regions([])
        self._enable_controls(False)

    def _enable_controls(self, enabled: bool) -> None:
        ui = self.ui
        for widget in (
            ui.nextPeakButton,
            ui.previousPeakButton,
            ui.sliceSlider,
            ui.showPlotButton,
            ui.resetThresholdButton,
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
        about = result.about
        score = about.get("volume_score")
        no_score = _("No slice contains enough tissue to score")
        parts = [
            _("Volume score {score}").format(score=f"{score:.3f}") if score is not None else no_score,
            _("threshold {value}").format(value=f"{about['threshold']:.3f}"),
            _("{plane} slices").format(plane=about["plane"]),
            _("detector {name}").format(name=about["detector"]),
        ]
        ui.resultLabel.text = ", ".join(parts) + "."
        self.module.observe_views()
        self.show_slice()
        if result.reference(REGIONS) is None:
            self._settle_timer.start()
        else:
            self._show_regions(stored_regions(result))

    def _show_map(self, result: Result) -> None:
        """Update the scene to the parameters; what already agrees is not touched."""
        parameters = self.parameters
        if abs(result.threshold - parameters.threshold) > 1e-9:
            result.set_threshold(parameters.threshold)
            self._settle_timer.start()
        if not self.module.compare.active:
            overlay.show(result, parameters.opacity, parameters.showMap)
        for other in Result.all():
            selected = other.node is result.node
            other.show_3d(parameters.show3D and selected)
            visible, legend = parameters.showLegend and parameters.showMap and selected, other.legend
            if legend is not None and bool(legend.GetVisibility()) != visible:
                legend.SetVisibility(visible)

    def reset_threshold(self) -> None:
        """Set the threshold to the detector's calibrated one."""
        self.parameters.threshold = float(self.require_result().about["threshold"])

    # --- slices ---
    def show_plot(self) -> None:
        """Show the plot of score against slice."""
        result = self.require_result()
        show_chart(result.reference(CHART) or store_scores(result))
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
        """List the regions above the current threshold."""
        if self.result is not None:
            self.ui.regionsLabel.text = _("Finding regions...")
            self.module.analysis.regions(self.result, self._show_regions, self.fail)

    def _show_regions(self, regions: list[Region]) -> None:
        self.regions = regions
        total = sum(region.volume for region in regions)
        words = _("{count} regions above the threshold, {volume} ml.")
        if len(regions) < 2:
            words = _("1 region above the threshold, {volume} ml.") if regions else _("No regions.")
        self.ui.regionsLabel.text = words.format(count=len(regions), volume=f"{total:.1f}")
        rows = [
            (number + 1, f"{r.volume:.2f}", f"{r.peak:.3f}", f"{r.first}-{r.last}", r.slice)
            for number, r in enumerate(regions)
        ]
        self._fill_regions(rows)

    def _fill_regions(self, rows: list[tuple]) -> None:
        titles = ["", _("Volume (ml)"), _("Peak"), _("Slices"), _("Peak slice")]
        fill_table(self.ui.regionsTable, titles, rows)

    def show_region(self, row: int) -> None:
        """Move the views to the peak of a region in the table."""
        if 0 <= row < len(self.regions):
            navigation.jump(self.require_result(), self.regions[row].ijk)
