"""Results: the map in the views, slices and their scores, suspicious regions."""

from __future__ import annotations

from typing import Any

import numpy as np
from slicer.i18n import tr as _

from MedCLIPADLib import navigation, overlay
from MedCLIPADLib.panels.base import fill_combo, say_why
from MedCLIPADLib.panels.regions import RegionList
from MedCLIPADLib.plots import mark_current, offer_chart, show_chart, slice_of_point, store_scores
from MedCLIPADLib.regions import stored_regions
from MedCLIPADLib.results import CHART, SERIES, Result
from MedCLIPADLib.tones import CAUTION, style
from MedCLIPADLib.volumes import RESULT

_SAME = 1e-3  # difference of two thresholds that the slider, with three decimals, cannot show


class ResultsPanel(RegionList):
    """The section Results: verdict, display, plot and slices; the regions are in `RegionList`."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        ui = self.ui
        for selector in (ui.resultSelector, ui.compareSelector):
            selector.addAttribute("vtkMRMLScalarVolumeNode", RESULT)
        self._shown = ""  # id of the map that the widgets show
        self._applied: dict[str, Any] = {}  # the parameters as the scene was last made to follow them
        self.on_click(ui.resetThresholdButton, self.reset_threshold)
        self.on_click(ui.showPlotButton, self.show_plot)
        self.on_click(ui.nextPeakButton, self.next_peak)
        self.on_click(ui.previousPeakButton, self.previous_peak)
        ui.sliceSlider.connect("valueChanged(int)", self._slid)

    # --- a new or another map ---
    def show_new(self, result: Result) -> None:
        """Select a new map and show it at its most suspicious slice.

        Its plot is shown where the layout has a plot view; the layout stays.
        """
        navigation.align_views(result)
        result.set_threshold(result.outline(self.parameters.falseRegions))
        self.parameters.result = result.node
        self.ui.resultSelector.setCurrentNode(result.node)
        self.session.jobs.post(lambda: self.guarded(self._offer_plot))  # in a later turn: making it takes time
        scores = result.slice_scores
        if np.isfinite(scores).any():
            navigation.jump_to_slice(result, int(np.nanargmax(scores)))

    def adopt(self) -> None:
        """Take the scene as it is: the next `update` shows in the panel what the views show, and changes no view."""
        self._shown = ""
        self._applied = self._wanted()

    @property
    def _opacity(self) -> float:
        return self.parameters.opacity if self.parameters.showMap else 0.0

    def _wanted(self) -> dict[str, Any]:
        """Return the parameters that the views follow."""
        parameters = self.parameters
        return {
            "result": parameters.result.GetID() if parameters.result is not None else "",
            "threshold": parameters.threshold,
            "opacity": self._opacity,
            "showMap": parameters.showMap,
            "showLegend": parameters.showLegend,
            "show3D": parameters.show3D,
        }

    def update(self) -> None:
        """Show the selected map, and make the scene follow the parameters that changed."""
        result = self.result
        if result is None:
            self._shown, self._applied = "", self._wanted()
            self._show_nothing()
            if self.parameters.result is not None:
                words = _("{name} was stored by another version of MedCLIPAD: analyse its volume again.")
                self.fail(words.format(name=self.parameters.result.GetName()))
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
        ui.falseRegionsComboBox.enabled = False
        ui.falseRegionsComboBox.toolTip = _("There is no map yet: choose a volume and press Detect.")
        self._enable_controls(False)

    def _enable_controls(self, enabled: bool) -> None:
        ui = self.ui
        for widget in (
            ui.showMapCheckBox,
            ui.showLegendCheckBox,
            ui.show3DCheckBox,
            ui.opacitySlider,
            ui.thresholdSlider,
            ui.flickerButton,
            ui.linkButton,
            ui.nextPeakButton,
            ui.previousPeakButton,
            ui.sliceSlider,
            ui.showPlotButton,
            ui.pointsButton,
            ui.snapshotButton,
            ui.resetThresholdButton,
        ):
            say_why(widget, "" if enabled else _("There is no map yet: choose a volume and press Detect."))

    def _changed_map(self, result: Result) -> None:
        """Show another map than before, or one of a scene that was just loaded."""
        ui = self.ui
        result.restore_colours()
        self.parameters.threshold = self._applied["threshold"] = result.threshold
        slider = ui.sliceSlider
        was = slider.blockSignals(True)
        slider.maximum = len(result.slicing) - 1
        slider.blockSignals(was)
        self._enable_controls(True)
        self._show_verdict(result)
        self.module.watch.views()
        self.show_slice()
        self._limit = self.limit
        stored = stored_regions(result, self._limit)
        if stored is None:
            self.list_regions_soon()
        else:
            self._show_regions(result, stored)

    def _show_verdict(self, result: Result) -> None:
        """Show the verdict, cautions, and how they came about."""
        ui = self.ui
        ui.verdictTextLabel.text = result.verdict
        ui.verdictTextLabel.visible = True
        warnings = " ".join(result.warnings)
        ui.warningsLabel.text = _("Caution: {warnings}").format(warnings=warnings) if warnings else ""
        ui.warningsLabel.setStyleSheet(style(ui.warningsLabel, CAUTION))
        ui.warningsLabel.visible = bool(warnings)
        self.show_text()

    def show_text(self) -> None:
        """Show score, plane and detector of the selected map, and what its normal scans can promise."""
        ui, result = self.ui, self.result
        if result is None:
            return
        about = result.about
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
        """Make the scene follow the parameters that changed since the last time; what the reader set stays."""
        wanted, before = self._wanted(), self._applied
        self._applied = wanted
        changed = {name for name, value in wanted.items() if before.get(name) != value}
        if "threshold" in changed:
            result.set_threshold(self.parameters.threshold)
            self.list_regions_soon()
        elif abs(result.threshold - self.parameters.threshold) > _SAME:  # set by the reader, in the module Volumes
            self.parameters.threshold = result.threshold
            self.list_regions_soon()
        self._show_rates(result)
        if self._limit != self.limit:
            self._limit = self.limit
            self.list_regions_soon()
        if not self.module.compare.active:
            if "result" in changed or ("showMap" in changed and self.parameters.showMap):
                overlay.show(result, self._opacity)
            elif "opacity" in changed:
                overlay.set_opacity(result, self._opacity)
        if changed & {"result", "show3D"}:
            for other in Result.all():
                other.show_3d(self.parameters.show3D and other.node is result.node)
            if self.parameters.show3D:
                self.module.analysis.show_head(result, self.fail)
        if changed & {"result", "showMap", "showLegend"}:
            self._show_legend(result)

    def _show_legend(self, result: Result) -> None:
        """Show the legend of the selected map, and of no other."""
        parameters = self.parameters
        for other in Result.all():
            legend = other.legend
            if legend is not None:
                legend.SetVisibility(False)  # it is only drawn if it is switched on while its map is shown
                legend.SetVisibility(parameters.showLegend and parameters.showMap and other.node is result.node)

    # --- slices ---
    def show_plot(self) -> None:
        """Show the plot of score against slice, in a layout with a plot view."""
        show_chart(self._chart(self.require_result()))
        self.module.watch.plots()

    def _offer_plot(self) -> None:
        """Show the plot in the plot views of the layout, if it has any."""
        offer_chart(self._chart(self.require_result()))
        self.module.watch.plots()

    def _chart(self, result: Result) -> Any:
        """Return the chart of a result with the current slice; make it if there is none."""
        chart = result.reference(CHART) or store_scores(result)
        mark_current(result, navigation.current_slice(result))
        return chart

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
