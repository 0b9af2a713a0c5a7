"""Faults seeded into the Slicer module: each must make a test of the module fail.

`python -m tests.slicer.faults` breaks a copy of the module with one fault after the other, runs the test named with it,
and writes the list to docs/explanation/slicer-faults.md. About half a minute each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "docs" / "explanation" / "slicer-faults.md"

PANEL = "test_widget_review.py::test_every_control_has_a_tooltip"
DETECT = "test_widget_detect.py::test_detect_lays_the_map_over_the_volume_in_all_views"
SLIDERS = "test_widget_detect.py::test_opacity_and_threshold_act_at_once"
PIXELS = "test_widget_detect.py::test_each_coloured_pixel_is_a_voxel_above_the_threshold"
CANCEL = "test_widget_detect.py::test_cancel_gives_the_panel_back"
JUMP = "test_logic_results.py::test_a_jump_and_the_current_slice_agree"
COLOURS = "test_logic_colours.py::test_colours_are_on_one_fixed_range_whatever_the_threshold_map_and_detector"
LEGEND = "test_logic_colours.py::test_the_legend_says_how_rare_a_colour_is_and_no_more_than_the_normal_scans_support"
IN_3D = "test_logic_results.py::test_the_3d_view_shows_what_is_above_the_threshold_in_the_same_colours"
LIMITS = "test_widget_results.py::test_the_reader_chooses_how_many_false_regions_are_listed"
SERVERS = "test_logic_results.py::test_regions_are_the_servers"
VERDICT = "test_widget_results.py::test_the_verdict_and_cautions_are_shown_and_survive_the_scene"
PLOT = "test_widget_detect.py::test_plot_table_and_keys_move_the_views"
MANNERS, CONNECTION = "test_widget_manners.py", "test_widget_connection.py"
CONNECTED = f"{MANNERS}::test_the_parameters_are_connected_whatever_connectgui_returns"
WAITING = "test_logic_labelling.py::test_a_waiting_label_does_not_go_to_another_volume_of_the_same_id"
OWN_MARKS = "test_logic_labelling.py::test_the_servers_marks_do_not_overwrite_the_readers"
HOTTEST = "test_logic_detect.py::test_the_hottest_voxel_lies_in_the_lesion_in_ras"


@dataclass(frozen=True)
class Fault:
    """A replacement of `old` by `new` in a file below MedCLIPAD/ that makes a test fail."""

    name: str
    file: str
    old: str
    new: str
    test: str


# fmt: off
LIB = "MedCLIPADLib"
RESULTS, REGIONS = f"{LIB}/panels/results.py", f"{LIB}/panels/regions.py"
FAULTS = [
    # bindings and .ui files
    Fault("wrong signal", REGIONS, "cellClicked(int,int)", "cellClick(int,int)", PANEL),
    Fault("wrong property", f"{LIB}/panels/connection.py",
          "connectButton.text =", "connectButton.caption =", PANEL),
    Fault("property called as a method", f"{LIB}/panels/connection.py",
          "ui.urlLineEdit.text, ui.tokenLineEdit.text, self._idle",
          "ui.urlLineEdit.text(), ui.tokenLineEdit.text, self._idle",
          "test_widget_review.py::test_one_message_per_cause"),
    Fault("wrong parameter name in the .ui file", "Resources/UI/Results.ui",
          '<string notr="true">opacity</string>', '<string notr="true">opaque</string>', PANEL),
    Fault("missing .ui connection", "Resources/UI/Detect.ui",
          "<receiver>inputSelector</receiver>", "<receiver>Detect</receiver>", DETECT),
    Fault("button not connected", f"{LIB}/panels/detect.py",
          "self.on_click(self.ui.cancelButton, self.cancel)", "pass", CANCEL),
    Fault("lost observer of the parameters", "MedCLIPAD.py",
          "self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onModified)", "pass",
          SLIDERS),
    Fault("lost observer of the loaded scene", "MedCLIPAD.py",
          "self.addObserver(scene, scene.EndImportEvent, self._onSceneImported)", "pass",
          "test_widget_detect.py::test_save_close_and_reload_keeps_the_panel_working"),
    # geometry
    Fault("swapped axes", f"{LIB}/navigation.py",
          "kji[2], kji[1], kji[0]", "kji[0], kji[1], kji[2]", JUMP),
    Fault("slice numbers off by one", f"{LIB}/grid.py", "ijk[self.axis] + 0.5", "ijk[self.axis] + 1.5", JUMP),
    Fault("slices numbered from the wrong end", f"{LIB}/grid.py", "sign[self.axis] > 0", "sign[self.axis] < 0",
          "test_logic_detect.py::test_slice_numbers_equal_the_servers"),
    Fault("LPS for RAS in the map", f"{LIB}/results.py",
          "matrix_of(affine)", "matrix_of(np.diag([-1, -1, 1, 1]) @ affine)", PIXELS),
    Fault("LPS for RAS in the uploaded file", f"{LIB}/files.py",
          "right-anterior-superior", "left-posterior-superior", HOTTEST),
    Fault("parent transform ignored", f"{LIB}/results.py",
          "node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())", "pass",
          "test_widget_detect.py::test_a_transform_given_later_moves_the_map"),
    Fault("segmentation beside its place", f"{LIB}/segmentation.py", "i, j, k = first", "i, j, k = 0, 0, 0",
          "test_logic_results.py::test_a_segmentation_is_what_the_overlay_shows_and_becomes_the_label"),
    # looks
    Fault("opacity ignored", f"{LIB}/overlay.py",
          "SetForegroundOpacity(opacity)", "SetForegroundOpacity(0.6)", SLIDERS),
    Fault("threshold ignored", f"{LIB}/results.py", "display.SetThreshold(value,", "display.SetThreshold(0.0,",
          COLOURS),
    Fault("colours begin at the threshold", f"{LIB}/results.py",
          "display.SetThreshold(value, max(value, HIGH))\n        display.SetWindowLevelMinMax(*WINDOW)",
          "display.SetThreshold(value, max(value, HIGH))\n        display.SetWindowLevelMinMax(value, 1.0)", COLOURS),
    Fault("legend shows numbers", f"{LIB}/legend.py",
          "legend.SetUseColorNamesForLabels(True)", "legend.SetUseColorNamesForLabels(False)",
          "test_widget_results.py::test_the_legend_is_drawn_with_words"),
    Fault("labels half a step beside their colours", f"{LIB}/colours.py",
          "WINDOW = (LOW - STEP / 2, HIGH + STEP / 2)", "WINDOW = (LOW, HIGH)", LEGEND),
    Fault("legend claims more than the normal scans support", f"{LIB}/colours.py",
          "for number in _NAMED if value_of(number) <= top", "for number in _NAMED[:3]", LEGEND),
    Fault("3D view ignores the threshold", f"{LIB}/results.py",
          "(threshold - 1e-4, 0.0), (threshold, shown)", "(threshold - 1e-4, 0.2), (threshold, shown)", IN_3D),
    Fault("3D view with colours of its own", f"{LIB}/results.py",
          "colour.AddRGBPoint(value_of(number), *rgba[:3])", "colour.AddRGBPoint(number / COUNT, *rgba[:3])", IN_3D),
    Fault("colours not perceptually uniform", f"{LIB}/colours.py",
          "even = np.linspace(0, length[-1], count)", "even = np.linspace(0, 1, count) ** 2 * length[-1]",
          "test_logic_colours.py::test_colours_are_perceptually_uniform"),
    # results
    Fault("verdict lost with the scene", f"{LIB}/results.py",
          'verdict, warnings = about.get("verdict", ""), " ".join(self.warnings)',
          'verdict, warnings = "", ""', VERDICT),
    Fault("cautions not shown", f"{LIB}/panels/results.py",
          "ui.warningsLabel.visible = bool(warnings)", "ui.warningsLabel.visible = False", VERDICT),
    Fault("the choice of false regions is not saved", REGIONS,
          "fill_combo(combo, entries, result.rate(self.parameters.falseRegions))",
          "fill_combo(combo, entries, result.rate())", VERDICT),
    Fault("limit of the peaks ignored", f"{LIB}/regions.py",
          "numbers = numbers[exceeds[numbers]]", "pass", LIMITS),
    Fault("limit moves with the threshold", REGIONS,
          "return self.require_result().limit(self.parameters.falseRegions)",
          "return self.parameters.threshold", LIMITS),
    Fault("segmentation of all regions", f"{LIB}/panels/review.py",
          "self.require_result(), self.module.results.limit", "self.require_result(), None", LIMITS),
    Fault("corners do not connect", f"{LIB}/regions.py", ", np.ones((3, 3, 3))", "", SERVERS),
    Fault("left and right swapped", f"{LIB}/regions.py", "r > _MIDDLE", "r < -2 * _MIDDLE", SERVERS),
    Fault("sides from the grid, not the body", f"{LIB}/regions.py",
          "bounding_box(array > 0)", "bounding_box(array >= 0)", SERVERS),
    Fault("peaks beyond the normal scans get a number", f"{LIB}/rarity.py", "if value <= top", "if True",
          "test_logic_colours.py::test_map_values_are_said_in_words"),
    Fault("no limit in the plot", f"{LIB}/plots.py", "if limit is not None:", "if False:",
          "test_logic_results.py::test_the_plot_shows_the_limit_and_the_current_slice_as_lines"),
    Fault("current slice not marked in the plot", f"{LIB}/panels/results.py",
          "mark_current(result, number)\n", "pass\n",
          "test_widget_results.py::test_the_plot_follows_the_current_slice"),
    Fault("region volumes in a wrong unit", f"{LIB}/regions.py", "/ 1000", "/ 100",
          "test_logic_results.py::test_regions_are_scipys_components"),
    Fault("skipped slices shift the plot's points", f"{LIB}/plots.py",
          'return int(float(table.GetCellText(point, 0)))', "return point",
          "test_logic_results.py::test_points_of_the_plot_have_their_slice_numbers_although_some_were_skipped"),
    Fault("click on the plot misplaced", f"{LIB}/plotclick.py", "(x - left) /", "(x - left + 40) /", PLOT),
    # the server
    Fault("hash ignored: always uploaded", f"{LIB}/detection.py",
          "image = images.find(client, sha256, known, source.server)", "image = None",
          "test_logic_detect.py::test_a_second_analysis_uploads_nothing_and_gets_the_stored_answer"),
    Fault("hash over the wrong axis order", f"{LIB}/files.py", "{ni}x{nj}x{nk}", "{nk}x{nj}x{ni}",
          "test_logic_detect.py::test_the_content_hash_equals_the_servers"),
    Fault("progress never reported", f"{LIB}/jobs.py", "job.on_progress = progress", "job.on_progress = None", CANCEL),
    Fault("progress bar never moves", f"{LIB}/panels/detect.py",
          "self.ui.detectProgressBar.value = 100 * done // total if total else 0", "pass", CANCEL),
    Fault("cancel not sent", f"{LIB}/client.py", "self._client.cancel(self._id)", "pass",
          "test_logic_detect.py::test_cancel_reaches_the_server"),
    Fault("work in the interface's thread", f"{LIB}/jobs.py",
          'threading.Thread(target=run, name=f"MedCLIPAD {name}", daemon=True).start()', "run()", CANCEL),
    Fault("connects by itself", f"{LIB}/panels/connection.py",
          "        self._restore()\n", "        self._restore()\n        self.connect()\n",
          "test_widget_review.py::test_nothing_is_sent_before_connect"),
    Fault("token kept without being asked", f"{LIB}/panels/connection.py",
          'ui.tokenLineEdit.text if ui.rememberTokenCheckBox.checked else ""', "ui.tokenLineEdit.text",
          "test_widget_review.py::test_settings_are_remembered_and_the_token_only_if_asked"),
    # labelling
    Fault("marks swapped", f"{LIB}/keys.py",
          '"N": lambda: review.mark("normal")', '"N": lambda: review.mark("abnormal")',
          "test_widget_review.py::test_keys_mark_slices_and_a_range"),
    Fault("unsent labels forgotten", f"{LIB}/pending.py",
          "os.replace(temp_path, self.folder / item.name)", "shutil.rmtree(temp_path)",
          "test_logic_labelling.py::test_nothing_is_lost_when_the_server_cannot_be_reached"),
    # the training form
    Fault("titles of the schema ignored", f"{LIB}/schema.py",
          'title=spec.get("title") or readable(name)', "title=readable(name)",
          "test_form.py::test_the_title_is_the_label_and_the_name_only_if_it_is_missing"),
    Fault("descriptions of the schema ignored", f"{LIB}/form.py",
          "self.widget.toolTip = field.help or field.title", "self.widget.toolTip = field.title",
          "test_form.py::test_the_description_is_the_tool_tip"),
    Fault("optional numbers without a default", f"{LIB}/form.py",
          '_("default") if field.optional else str(field.constants[0]) if', 'str(field.constants[0]) if',
          "test_form.py::test_an_optional_number_is_the_methods_default_until_one_is_entered"),
    Fault("the method's default sent as a number", f"{LIB}/form.py",
          "return (None if field.optional else field.constants[0]) if special else state",
          "return field.constants[0] if special and not field.optional else state",
          "test_form.py::test_an_optional_number_may_be_set_back_to_the_methods_default"),
    Fault("all sent as a number", f"{LIB}/form.py",
          "return (None if field.optional else field.constants[0]) if special else state",
          "return None if field.optional and special else state",
          "test_form.py::test_all_is_a_value_of_the_spin_box"),
    Fault("advanced parameters not folded away", f"{LIB}/form.py", "group.collapsed = True", "group.collapsed = False",
          "test_form.py::test_advanced_parameters_are_in_a_collapsed_group"),
    Fault("constants are no choices", f"{LIB}/schema.py",
          'return (option["const"],) if "const" in option else tuple', "return tuple",
          "test_form.py::test_enumerations_and_constants_are_choices"),
    Fault("lists split wrongly", f"{LIB}/schema.py", 'text.split(",")', "text.split()",
          "test_form.py::test_lists_are_typed_with_commas"),
    Fault("defaults sent", f"{LIB}/form.py",
          "return self.field.required or self._state() != self._initial", "return True",
          "test_form.py::test_lists_are_typed_with_commas"),
    Fault("http suggested for an untrusted certificate", f"{LIB}/transport.py",
          "ask whoever runs the server for its CA certificate", "check whether it is http:// instead",
          "test_logic_errors.py::test_an_untrusted_certificate"),
    Fault("the CA file is not used", f"{LIB}/transport.py", "self._session.verify = self.ca_file or True", "pass",
          "test_logic_errors.py::test_the_ca_file_that_the_sentence_asks_for_makes_the_connection"),
    Fault("voxels go through the environment's proxy", f"{LIB}/transport.py",
          "self._session.trust_env = False", "self._session.trust_env = True",
          "test_logic_errors.py::test_the_environments_proxy_gets_nothing"),
    Fault("redirects are followed", f"{LIB}/transport.py", "allow_redirects=False", "allow_redirects=True",
          "test_logic_errors.py::test_a_redirect_is_not_followed"),
    # Slicer itself
    Fault("connectGui's tag is awaited", "MedCLIPAD.py",
          "parameters.connectParametersToGui(self._parameterWidgets())", "parameters.connectGui(self.ui)", CONNECTED),
    Fault("sample without an address", f"{LIB}/sampledata.py", "uris=URL,", "uris=None,",
          "test_widget_review.py::test_the_sample_is_registered_and_loads"),
    Fault("the plot view's own node", f"{LIB}/plotclick.py",
          "self._widget.mrmlPlotViewNode()", "self._widget.plotView().mrmlPlotViewNode()", PLOT),
    Fault("a node that keeps its voxels", f"{LIB}/watch.py",
          "volume.AddObserver(event, self._volume_moved)",
          "volume.AddObserver(event, lambda *_, kept=volume: self._volume_moved(kept, None))",
          f"{MANNERS}::test_nodes_and_so_their_voxels_are_released"),
    Fault("views reset at every change", RESULTS, 'if "result" in changed or', "if True or",
          f"{MANNERS}::test_views_that_the_reader_changed_stay"),
    Fault("needs a main window", f"{LIB}/watch.py", "if layout is not None:\n            layout.connect",
          "if True:\n            layout.connect", f"{MANNERS}::test_without_a_main_window"),
    Fault("a key of Slicer's own", f"{LIB}/keys.py", '",": results', '"[": results',
          f"{MANNERS}::test_no_key_is_one_of_slicers_own"),
    Fault("keys stay active in other modules", "MedCLIPAD.py", "self.keys.enable(False)", "pass",
          f"{MANNERS}::test_keys_act_in_this_module_only"),
    Fault("Detect switches the layout", RESULTS, "offer_chart(self._chart", "show_chart(self._chart",
          f"{MANNERS}::test_detect_does_not_switch_the_layout"),
    Fault("leaving side by side forgets the views", f"{LIB}/panels/compare.py", "self._before.restore()", "pass",
          f"{MANNERS}::test_leaving_a_comparison_returns_to_the_views_as_they_were"),
    Fault("Reload keeps the library", "MedCLIPAD.py", "del sys.modules[_name]", "pass",
          f"{MANNERS}::test_reload_reloads_the_library"),
    Fault("unknown parameters are read", f"{LIB}/stored.py", "node.UnsetParameter(name)", "pass",
          f"{MANNERS}::test_a_stored_parameter_of_another_version_has_its_default"),
    # taken along
    Fault("the legend lies over the head", f"{LIB}/legend.py", "legend.SetPosition(*_POSITION)", "pass",
          "test_widget_results.py::test_the_legend_is_off_the_head_and_not_cut"),
    Fault("the Data tree offers maps to be analysed", f"{LIB}/MedCLIPADSubjectHierarchyPlugin.py",
          " and not node.GetAttribute(_RESULT)", "",
          "test_widget_data_tree.py::test_the_menu_offers_it_for_volumes_alone"),
    Fault("a snapshot without words", f"{LIB}/snapshot.py", "column.addWidget(words)", "pass",
          "test_widget_dicom.py::test_a_snapshot_shows_the_finding_and_says_what_it_is"),
    Fault("a DICOM snapshot in a study of its own", f"{LIB}/dicomfiles.py",
          "header.StudyInstanceUID, generate_uid(prefix=None)", "generate_uid(prefix=None), generate_uid(prefix=None)",
          "test_widget_dicom.py::test_a_dicom_snapshot_belongs_to_the_patients_study"),
    # other servers, other readers
    Fault("a waiting label goes to another volume of its id", f"{LIB}/images.py",
          "image if _content_of(client, image) == sha256 else None", "image", WAITING),
    Fault("a waiting label goes to another server", f"{LIB}/pending.py", "if client.url != item.server:", "if False:",
          WAITING),
    Fault("the server's marks overwrite the reader's", f"{LIB}/analysis.py",
          "merge_marks(marks(node, answer.image), remote_marks)", "remote_marks", OWN_MARKS),
    Fault("removed marks come back", f"{LIB}/analysis.py", "remote = None  #", "pass  #", OWN_MARKS),
    Fault("the reader's Cancel is an error", f"{LIB}/panels/training.py",
          'self.say(_("The training was stopped;', 'self.fail(_("The training was stopped;',
          f"{CONNECTION}::test_the_readers_own_cancel_is_no_error"),
    Fault("errors are dark on dark", f"{LIB}/tones.py", "background.lightness() < 128", "False",
          f"{CONNECTION}::test_errors_and_cautions_can_be_read_on_light_and_dark"),
    Fault("errors keep the colours of another theme", f"{LIB}/tones.py",
          "widget.parentWidget().palette", "widget.palette",
          f"{CONNECTION}::test_errors_and_cautions_can_be_read_on_light_and_dark"),
    Fault("extent in voxels", f"{LIB}/regions.py", "max(size * mm for size", "max(size for size",
          "test_logic_results.py::test_regions_are_scipys_components"),
    Fault("messages stay", f"{LIB}/panels/base.py", 'self.say("")', "pass",
          f"{CONNECTION}::test_an_error_is_shown_once_and_goes_with_the_next_step"),
    Fault("grey without a reason", f"{LIB}/panels/base.py", "widget.toolTip = reason or own", "pass",
          f"{CONNECTION}::test_every_grey_control_says_why"),
    Fault("installed without being asked", f"{LIB}/panels/connection.py",
          "if slicer.util.confirmYesNoDisplay(question, parent=slicer.util.mainWindow()):\n            self.ui.server",
          "if True:\n            self.ui.server",
          "test_widget_local_server.py::test_nothing_is_installed_unless_the_reader_agrees"),
]
# fmt: on


def broken(fault: Fault | None, folder: Path) -> Path:
    """Copy the module, with a fault or without one, and return the path of its MedCLIPAD.py."""
    copy = shutil.copytree(ROOT / "MedCLIPAD", folder / "MedCLIPAD", ignore=shutil.ignore_patterns("__pycache__"))
    if fault is not None:
        path = Path(copy) / fault.file
        text = path.read_text(encoding="utf-8")
        if fault.old not in text:
            raise ValueError(f"{fault.name}: {fault.file} no longer holds {fault.old!r}; seed the fault anew")
        path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    return Path(copy) / "MedCLIPAD.py"


def run(tests: list[str], fault: Fault | None = None) -> tuple[bool, str]:
    """Return whether all tests pass on a copy of the module with a fault, and pytest's output."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"MEDCLIPAD_SLICER_MODULE": str(broken(fault, Path(folder)))}
        names = [f"tests/slicer/{name}" for name in tests]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider", *names]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):  # 0: all passed, 1: some failed; anything else is no verdict
        raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0, done.stdout


def main() -> None:
    """Seed every fault and write the report; exit with 1 if a fault is not noticed or a test fails without one."""
    wanted = sys.argv[1:]
    chosen = [fault for fault in FAULTS if not wanted or fault.name in wanted]
    sound, said = run(sorted({fault.test for fault in chosen}))
    if not sound:
        sys.exit(f"The tests fail on the module without any fault:\n{said[-3000:]}")
    rows = []
    for number, fault in enumerate(chosen, 1):
        start = time.monotonic()
        caught = not run([fault.test], fault)[0]
        rows.append((fault, caught))
        verdict = "caught" if caught else "NOT CAUGHT"
        print(f"{number:2}/{len(chosen)} {verdict}: {fault.name} ({time.monotonic() - start:.0f} s)", flush=True)
    if not wanted:
        REPORT.write_text(report(rows), encoding="utf-8")
        print(f"wrote {REPORT.relative_to(ROOT)}")
    missed = [fault.name for fault, caught in rows if not caught]
    sys.exit(f"not caught: {', '.join(missed)}" if missed else 0)


def report(rows: list[tuple[Fault, bool]]) -> str:
    """Return the list of faults as Markdown."""
    caught = sum(found for _, found in rows)
    lines = [
        "# Faults seeded into the Slicer module",
        "",
        f"Written by `make slicer-faults`: {caught} of {len(rows)} faults make the test named with them fail; "
        "all these tests pass on the module as it is.",
        "",
        "| Fault | File | Test that fails |",
        "| --- | --- | --- |",
    ]
    for fault, found in rows:
        test = f"`{fault.test.replace('.py::', '.py` `')}`" if found else "**none**"
        lines.append(f"| {fault.name} | `{fault.file}` | {test} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
