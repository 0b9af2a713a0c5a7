"""The shown finding as a picture: a slice view with its map and legend, and below it what was found."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import qt
import slicer
import vtk
from slicer.i18n import tr as _

from MedCLIPADLib import dicomfiles, navigation
from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.regions import Region, side_in_words
from MedCLIPADLib.results import Result

_STYLE = "background: black; color: white; font-size: 13px;"
_MARGIN = 6  # pixels around the text


def caption(result: Result, region: Region | None = None, number: int = 1) -> str:
    """Return what is written below the picture.

    Parameters
    ----------
    result : Result
        The map.
    region : Region or None
        The finding; None for the verdict alone.
    number : int
        Its number in the table.
    """
    about = result.about
    by = _("{method}, detector {detector}.").format(method=about["method"], detector=about["detector"])
    if region is None:
        return f"{result.verdict}\n{by}"
    words = _("Region {number}: {volume} ml, {extent} mm, {side}, slices {first}-{last}, peak: {rarity}.")
    finding = words.format(
        number=number,
        volume=f"{region.volume:.2f}",
        extent=f"{region.extent:.0f}",
        side=side_in_words(region.side),
        first=region.first,
        last=region.last,
        rarity=result.in_words(region.peak),
    )
    return f"{finding}\n{result.verdict}\n{by}"


def save(result: Result, text: str, path: Path) -> None:
    """Save the shown slice of a map with a text below it.

    Parameters
    ----------
    result : Result
        The map; the view of its plane is taken.
    text : str
        The text.
    path : Path
        A .png file, or a .dcm file: a DICOM Secondary Capture in the study of the volume.

    Raises
    ------
    ModuleError
        If there is no slice view, the volume is not from DICOM, or the file cannot be written.
    """
    if path.suffix.lower() == ".dcm":
        header = dicomfiles.series_header(result.volume)
        with tempfile.TemporaryDirectory(prefix="medclipad-") as folder:
            picture = Path(folder) / "picture.png"
            _save_png(result, text, picture)
            dicomfiles.write_secondary_capture(_pixels(picture), header, text, path)
    else:
        _save_png(result, text, path)


def _save_png(result: Result, text: str, path: Path) -> None:
    """Save the view of the map's plane with a text below it as PNG."""
    view = navigation.view_of(result, in_layout=True)
    layout = slicer.app.layoutManager()
    if view is None or layout is None:
        raise ModuleError(_("There is no slice view in the layout: choose a layout with one first."))
    frame = qt.QFrame()  # never shown: Qt wraps the text and draws both
    frame.setStyleSheet(_STYLE)
    column = qt.QVBoxLayout(frame)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(0)
    image, words = qt.QLabel(), qt.QLabel(text)
    pixmap = _captured(layout.sliceWidget(view.GetLayoutName()).sliceView())
    image.setPixmap(pixmap)
    words.wordWrap = True
    words.setFixedWidth(pixmap.width())
    words.setMargin(_MARGIN)
    column.addWidget(image)
    column.addWidget(words)
    frame.adjustSize()
    if not frame.grab().save(str(path)):
        raise ModuleError(_("{path} cannot be written: choose another folder or name.").format(path=path))


def _captured(view: Any) -> Any:
    """Return what a slice view shows as a QPixmap."""
    view.forceRender()
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(view.renderWindow())
    grabber.SetInputBufferTypeToRGB()
    grabber.ReadFrontBufferOff()
    with tempfile.TemporaryDirectory(prefix="medclipad-") as folder:
        path = str(Path(folder) / "view.png")
        writer = vtk.vtkPNGWriter()
        writer.SetInputConnection(grabber.GetOutputPort())
        writer.SetFileName(path)
        writer.Write()
        return qt.QPixmap(path)


def _pixels(path: Path) -> np.ndarray:
    """Return a PNG file as uint8 (rows, columns, 3), the top row first."""
    from vtk.util.numpy_support import vtk_to_numpy

    reader = vtk.vtkPNGReader()
    reader.SetFileName(str(path))
    reader.Update()
    image = reader.GetOutput()
    columns, rows, _depth = image.GetDimensions()
    flat = vtk_to_numpy(image.GetPointData().GetScalars())
    return np.ascontiguousarray(flat.reshape(rows, columns, -1)[::-1, :, :3])
