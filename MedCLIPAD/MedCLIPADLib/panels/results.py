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

SETTLE = 300  # ms without a change of the threshold, after which the regions are listed anew


class ResultsPanel(Panel):
    def __init__(self, module: Any) -> None:
        super().__init__(module)
        ui = self.ui
        for selector in (ui.resultSelector, ui.compareSelector):
            selector.addAttribute("vtkMRMLScalarVolumeNode", RESULT)
        self._shown = ""  # id of the map that the widgets show
        self._regions: list[Region] = []
        self._settle = qt.QTimer()
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLE)
        self._settle.connect("timeout()", self.list_regions)
        self.on_click(ui.resetThresholdButton, self.reset_threshold)
        self.on_click(ui.showPlotButton, self.show_plot)
        self.on_click(ui.nextPeakButton, self.next_peak)
        self.on_click(ui.previousPeakButton, self.previous_peak)
        ui.sliceSlider.connect("valueChanged(int)", self._slid)
        ui.regionsTable.connect(
            "cellClicked(int,int)", lambda row, _column: self.guarded(lambda: self.show_region(row))
        )

    # --- a new or another map ---
    def show_new(self, result: Result) -> None:
        """Look at a map that has just come: over its volume, at its most suspicious slice, with its plot."""
        overlay.show(result, self.parameters.opacity)
        navigation.align_views(result)
        self.parameters.threshold = result.threshold
        self.parameters.result = result.node
        self.ui.resultSelector.setCurrentNode(result.node)
        self.session.jobs.post(lambda: self.guarded(self.show_plot))  # a turn later: it may make a new view
        scores = result.slice_scores
        if np.isfinite(scores).any():
            navigation.jump_to_slice(result, int(np.nanargmax(scores)))

    def update(self) -> None:
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
        self._regions = []
        self._fill_regions([])
        for widget in (
            ui.nextPeakButton,
            ui.previousPeakButton,
            ui.sliceSlider,
            ui.showPlotButton,
            ui.resetThresholdButton,
        ):
            widget.enabled = False

    def _changed_map(self, result: Result) -> None:
        """Another map was chosen, or a scene was loaded."""
        ui = self.ui
        result.restore_colours()
        result.legend.SetVisibility(False)  # `_show_map` switches it on, once the map is shown
        if self.parameters.threshold != result.threshold:
            self.parameters.threshold = result.threshold
        slider = ui.sliceSlider
        was = slider.blockSignals(True)
        slider.maximum = len(result.slicing) - 1
        slider.blockSignals(was)
        for widget in (ui.nextPeakButton, ui.previousPeakButton, slider, ui.showPlotButton, ui.resetThresholdButton):
            widget.enabled = True
        about = result.about
        score = about.get("volume_score")
        none = _("No slice shows enough of the body")
        parts = [
            _("Volume score {score}").format(score=f"{score:.3f}") if score is not None else none,
            _("threshold {value}").format(value=f"{about['threshold']:.3f}"),
            _("{plane} slices").format(plane=about["plane"]),
            _("detector {name}").format(name=about["detector"]),
        ]
        ui.resultLabel.text = ", ".join(parts) + "."
        self.module.observe_views()
        self.show_slice()
        if result.reference(REGIONS) is None:
            self._settle.start()
        else:
            self._show_regions(stored_regions(result))

    def _show_map(self, result: Result) -> None:
        """Bring the scene to what the widgets say. Nothing is touched that is as it should be."""
        parameters = self.parameters
        if abs(result.threshold - parameters.threshold) > 1e-9:
            result.set_threshold(parameters.threshold)
            self._settle.start()
        if not self.module.compare.active:
            overlay.show(result, parameters.opacity, parameters.showMap)
        for other in Result.all():
            mine = other.node is result.node
            other.show_3d(parameters.show3D and mine)
            wanted, legend = parameters.showLegend and parameters.showMap and mine, other.legend
            if legend is not None and bool(legend.GetVisibility()) != wanted:
                legend.SetVisibility(wanted)

    def reset_threshold(self) -> None:
        self.parameters.threshold = float(self.need_result().about["threshold"])

    # --- slices ---
    def show_plot(self) -> None:
        result = self.need_result()
        show_chart(result.reference(CHART) or store_scores(result))
        self.module.observe_plots()

    def plot_clicked(self, chart: Any, place: float) -> None:
        """The plot was clicked at this place of its horizontal axis."""
        result = self.result
        if result is not None and chart is result.reference(CHART):
            number = round(place)
            if 0 <= number < len(result.slicing):
                navigation.jump_to_slice(result, number)

    def points_selected(self, series: Any, rows: Any) -> None:
        """Points of the plot were selected: vtkStringArray of series, vtkCollection of the chosen rows."""
        result = self.result
        mine = result.reference(SERIES) if result is not None else None
        for number in range(series.GetNumberOfValues()):
            chosen = rows.GetItemAsObject(number)
            if mine is not None and series.GetValue(number) == mine.GetID() and chosen.GetNumberOfValues():
                place = slice_of_point(result, int(chosen.GetValue(0)))
                if place is not None:
                    navigation.jump_to_slice(result, place)

    def _slid(self, number: int) -> None:
        if self.result is not None:
            navigation.jump_to_slice(self.result, number)

    def step(self, by: int) -> None:
        """To a neighbouring slice."""
        result = self.need_result()
        current = navigation.current_slice(result)
        number = (0 if current is None else current) + by
        if 0 <= number < len(result.slicing):
            navigation.jump_to_slice(result, number)

    def next_peak(self) -> None:
        self._to_peak(1)

    def previous_peak(self) -> None:
        self._to_peak(-1)

    def _to_peak(self, step: int) -> None:
        result = self.need_result()
        number = navigation.next_peak(result.slice_scores, navigation.current_slice(result), step)
        if number is None:
            self.say(_("No slice stands out: all scores are alike."))
        else:
            navigation.jump_to_slice(result, number)

    def show_slice(self) -> None:
        """Tell which slice the views are at."""
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
        if self.result is not None:
            self.ui.regionsLabel.text = _("Looking for regions ...")
            self.module.analysis.regions(self.result, self._show_regions, self.fail)

    def _show_regions(self, regions: list[Region]) -> None:
        self._regions = regions
        total = sum(region.volume for region in regions)
        words = _("{count} regions above the threshold, {volume} ml.") if regions else _("No regions.")
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
        if 0 <= row < len(self._regions):
            navigation.jump(self.need_result(), self._regions[row].ijk)
