"""Slice and 3D views: slicer-core's own logics and displayable managers, rendered off screen."""

from __future__ import annotations

import ctypes.util
import os
from typing import Any, ClassVar

import numpy as np
import slicer
import vtk
from PySide6.QtCore import Qt
from PySide6.QtGui import QImage, QPainter
from PySide6.QtWidgets import QWidget
from vtk.util.numpy_support import vtk_to_numpy

from .qmrml import qSlicerWidget

# Without a display VTK must be told which kind of window to make; it would try X first, and complain.
if not os.environ.get("DISPLAY"):
    offscreen = "vtkEGLRenderWindow" if ctypes.util.find_library("EGL") else "vtkOSOpenGLRenderWindow"
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", offscreen)


def image_of(pixels: np.ndarray) -> QImage:
    """Return uint8 pixels (height, width, 3) as a QImage with its own memory."""
    height, width, _ = pixels.shape
    data = np.ascontiguousarray(pixels)
    return QImage(data.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy()


class VtkWidget(qSlicerWidget):
    """A widget that VTK draws, and only when a test reads it.

    Mouse and keys do not reach the displayable managers: the MRML interactor styles crash without Slicer's own views.
    """

    for_tests = ("pixels",)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMinimumSize(60, 60)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._window: Any = None

    def _build(self, window: Any, interactor: Any) -> None:
        """Fill the window; called once, before the first rendering."""
        raise NotImplementedError

    def _resized(self, width: int, height: int) -> None:
        """React to a new size of the view."""

    def renderWindow(self) -> Any:
        if self._window is None:
            self._window, self._interactor = vtk.vtkRenderWindow(), vtk.vtkGenericRenderWindowInteractor()
            self._window.SetOffScreenRendering(1)
            self._interactor.SetRenderWindow(self._window)
            self._build(self._window, self._interactor)
            self._interactor.Initialize()
        return self._window

    def interactor(self) -> Any:
        self.renderWindow()
        return self._interactor

    def pixels(self, width: int | None = None, height: int | None = None) -> np.ndarray:
        """Render the view and return it as uint8 (height, width, 3), row 0 on top; by default in the widget's size."""
        width, height = width or self.width, height or self.height
        window = self.renderWindow()
        window.SetSize(width, height)
        self._interactor.SetSize(width, height)
        self._resized(width, height)
        window.Render()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(window)
        grabber.ReadFrontBufferOff()
        grabber.Update()
        flat = vtk_to_numpy(grabber.GetOutput().GetPointData().GetScalars())
        return flat.reshape(height, width, -1)[::-1, :, :3].copy()

    def forceRender(self) -> None:
        self.pixels()
        self.update()

    def scheduleRender(self) -> None:
        self.update()

    def paintEvent(self, _event: Any) -> None:
        QPainter(self).drawImage(0, 0, image_of(self.pixels()))


def _managed(view: VtkWidget, factory: Any, managers: tuple[str, ...], node: Any, renderer: Any) -> Any:
    """Return the displayable managers of a view, which draw the scene's nodes."""
    for name in managers:
        if not factory.IsDisplayableManagerRegistered(name):
            factory.RegisterDisplayableManager(name)
    group = slicer.vtkMRMLDisplayableManagerGroup()
    group.SetRenderer(renderer)
    group.Initialize(factory, renderer)
    group.SetMRMLDisplayableNode(node)
    return group


class qMRMLSliceView(VtkWidget):
    _MANAGERS: ClassVar[tuple[str, ...]] = (
        "vtkMRMLCrosshairDisplayableManager",
        "vtkMRMLSegmentationsDisplayableManager2D",
        "vtkMRMLModelSliceDisplayableManager",
        "vtkMRMLMarkupsDisplayableManager",
        "vtkMRMLColorLegendDisplayableManager",
        "vtkMRMLRulerDisplayableManager",
        "vtkMRMLOrientationMarkerDisplayableManager",
    )

    def __init__(self, logic: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._logic = logic

    def _build(self, window: Any, interactor: Any) -> None:
        renderer = vtk.vtkRenderer()
        renderer.GetActiveCamera().ParallelProjectionOn()
        window.AddRenderer(renderer)
        self._mapper, self._actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._actor.SetMapper(self._mapper)
        self._actor.GetProperty().SetDisplayLocationToBackground()
        renderer.AddViewProp(self._actor)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        node = self._logic.GetSliceNode()
        self._group = _managed(self, factory, self._MANAGERS, node, renderer)

    def _resized(self, width: int, height: int) -> None:
        self._logic.ResizeSliceNode(width, height)
        connection = self._logic.GetImageDataConnection()  # None while no volume is chosen
        self._mapper.SetInputConnection(connection)
        self._actor.SetVisibility(connection is not None)

    def wheelEvent(self, event: Any) -> None:
        """Go one slice forward or back, as in Slicer."""
        step = self._logic.GetLowestVolumeSliceSpacing()[2]
        self._logic.SetSliceOffset(self._logic.GetSliceOffset() + (step if event.angleDelta().y() > 0 else -step))
        self.update()

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def displayableManagerByClassName(self, name: str) -> Any:
        self.renderWindow()
        return self._group.GetDisplayableManagerByClassName(name)


class qMRMLThreeDView(VtkWidget):
    _MANAGERS: ClassVar[tuple[str, ...]] = (
        "vtkMRMLVolumeRenderingDisplayableManager",
        "vtkMRMLCameraDisplayableManager",
        "vtkMRMLViewDisplayableManager",
        "vtkMRMLModelDisplayableManager",
        "vtkMRMLSegmentationsDisplayableManager3D",
        "vtkMRMLThreeDReformatDisplayableManager",
        "vtkMRMLMarkupsDisplayableManager",
        "vtkMRMLColorLegendDisplayableManager",
        "vtkMRMLOrientationMarkerDisplayableManager",
    )

    def __init__(self, node: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._node = node
        self._fit = True

    def _build(self, window: Any, interactor: Any) -> None:
        self._renderer = vtk.vtkRenderer()
        window.AddRenderer(self._renderer)
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        self._group = _managed(self, factory, self._MANAGERS, self._node, self._renderer)

    def _resized(self, width: int, height: int) -> None:
        if self._fit:
            self.resetFocalPoint()
            self._fit = False

    def mrmlViewNode(self) -> Any:
        return self._node

    def cameraNode(self) -> Any:
        return slicer.modules.cameras.logic().GetViewActiveCameraNode(self._node)

    def resetFocalPoint(self) -> None:
        self.renderWindow()
        self._renderer.ResetCamera()

    def resetCamera(self) -> None:
        self.resetFocalPoint()
