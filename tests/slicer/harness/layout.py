"""The layout manager: Qt widgets for the views that slicer-core's own layout logic asks for."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import slicer
import vtk
from PySide6.QtCore import Property, QObject, Qt, Signal
from PySide6.QtWidgets import QSplitter, QTableWidget, QTableWidgetItem, QVBoxLayout, QWidget

from .plot_view import qMRMLPlotView
from .qmrml import qSlicerWidget
from .views import qMRMLSliceView, qMRMLThreeDView


class qMRMLSliceControllerWidget(QObject):
    """The bar above a slice view, as far as scripted modules use it."""

    def __init__(self, logic: Any) -> None:
        super().__init__()
        self._logic = logic

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()

    def setSliceVisible(self, visible: bool) -> None:
        self._logic.GetSliceNode().SetSliceVisible(visible)

    def setSliceLink(self, linked: bool) -> None:
        composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        for node in composites:
            node.SetLinkedControl(linked)

    def setSliceOffsetValue(self, offset: float) -> None:
        self._logic.SetSliceOffset(offset)


class qMRMLSliceWidget(qSlicerWidget):
    def __init__(self, application_logic: Any, node: Any) -> None:
        super().__init__()
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(application_logic)
        logic.SetMRMLScene(slicer.mrmlScene)
        logic.SetSliceNode(node)
        application_logic.GetSliceLogics().AddItem(logic)
        self._logic, self._view, self._controller = logic, qMRMLSliceView(logic), qMRMLSliceControllerWidget(logic)
        _fill(self, self._view)

    def sliceLogic(self) -> Any:
        return self._logic

    def sliceView(self) -> qMRMLSliceView:
        return self._view

    def sliceController(self) -> qMRMLSliceControllerWidget:
        return self._controller

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()


class qMRMLThreeDWidget(qSlicerWidget):
    def __init__(self, application_logic: Any, node: Any) -> None:
        super().__init__()
        self._logic = slicer.vtkMRMLViewLogic()
        self._logic.SetMRMLApplicationLogic(application_logic)
        self._logic.SetMRMLScene(slicer.mrmlScene)
        self._logic.AddViewNode(node.GetLayoutName())  # the singleton that is there already
        application_logic.GetViewLogics().AddItem(self._logic)
        self._view = qMRMLThreeDView(node)
        _fill(self, self._view)

    def threeDView(self) -> qMRMLThreeDView:
        return self._view

    def mrmlViewNode(self) -> Any:
        return self._view.mrmlViewNode()

    def viewLogic(self) -> Any:
        return self._logic


class qMRMLPlotWidget(qSlicerWidget):
    def __init__(self, _application_logic: Any, node: Any) -> None:
        super().__init__()
        self._node, self._view = node, qMRMLPlotView()
        self._view.setMRMLScene(slicer.mrmlScene)
        self._view.setMRMLPlotViewNode(node)
        _fill(self, self._view)

    def plotView(self) -> qMRMLPlotView:
        return self._view

    def mrmlPlotViewNode(self) -> Any:
        return self._node


class qMRMLTableWidget(qSlicerWidget):
    """Shows the view node's table as text; without the clicks of Slicer's table view."""

    def __init__(self, _application_logic: Any, node: Any) -> None:
        super().__init__()
        self._node, self._table = node, QTableWidget()
        node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._read())
        _fill(self, self._table)
        self._read()

    def _read(self) -> None:
        table = self._node.GetTableNode() and self._node.GetTableNode().GetTable()
        self._table.rowCount = table.GetNumberOfRows() if table else 0
        self._table.columnCount = table.GetNumberOfColumns() if table else 0
        for column in range(self._table.columnCount):
            self._table.setHorizontalHeaderItem(column, QTableWidgetItem(table.GetColumnName(column)))
            for row in range(self._table.rowCount):
                self._table.setItem(row, column, QTableWidgetItem(table.GetValue(row, column).ToString()))

    def tableView(self) -> QTableWidget:
        return self._table

    def mrmlTableViewNode(self) -> Any:
        return self._node


def _fill(outer: QWidget, inner: QWidget) -> None:
    layout = QVBoxLayout(outer)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(inner)


_WIDGETS: dict[str, Callable[[Any, Any], QWidget]] = {
    "vtkMRMLSliceNode": qMRMLSliceWidget,
    "vtkMRMLViewNode": qMRMLThreeDWidget,
    "vtkMRMLPlotViewNode": qMRMLPlotWidget,
    "vtkMRMLTableViewNode": qMRMLTableWidget,
}


class qSlicerLayoutManager(QObject):
    """The layout manager. As in Slicer, views are kept; those of the current layout are in `viewport()`."""

    layoutChanged = Signal(int)

    def __init__(self, application_logic: Any, scene: Any) -> None:
        super().__init__()
        self._application_logic, self._scene = application_logic, scene
        self._views: dict[tuple[str, str], QWidget] = {}
        self._viewport = QWidget()
        self._viewport.objectName = "CentralWidgetLayoutFrame"
        _fill(self._viewport, QWidget())
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLApplicationLogic(application_logic)
        self._logic.SetMRMLScene(scene)
        self._shown: tuple[int, str] | None = None
        node = self._logic.GetLayoutNode()
        node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._arrange())
        node.SetViewArrangement(node.SlicerLayoutFourUpView)
        self._arrange()

    def _arrange(self) -> None:
        node = self._logic.GetLayoutNode()
        description = node.GetCurrentLayoutDescription() or ""
        if not description or self._shown == (node.GetViewArrangement(), description):
            return
        self._shown = (node.GetViewArrangement(), description)
        frame = self._viewport.layout()
        old = frame.takeAt(0).widget()
        for (class_name, tag), view in self._views.items():
            view.setParent(None)
            self._node(class_name, tag).SetMappedInLayout(False)
        frame.addWidget(self._made(ElementTree.fromstring(description)))
        old.deleteLater()
        self.layoutChanged.emit(node.GetViewArrangement())

    def _made(self, element: ElementTree.Element) -> QWidget:
        """Return the widget of a <layout> or <view> element of a layout's description."""
        if element.tag == "view":
            view = self._view(element.get("class", ""), element.get("singletontag", ""))
            self._node(element.get("class", ""), element.get("singletontag", "")).SetMappedInLayout(True)
            view.setVisible(True)
            return view
        kind = element.get("type", "vertical")
        box = QSplitter(Qt.Orientation.Horizontal if kind == "horizontal" else Qt.Orientation.Vertical)
        for item in element.findall("item"):
            box.addWidget(self._made(item[0]))
        box.setSizes([1000] * box.count())
        return box

    def _view(self, class_name: str, tag: str) -> QWidget:
        if (class_name, tag) not in self._views:
            node = self._node(class_name, tag)
            self._views[class_name, tag] = _WIDGETS[class_name](self._application_logic, node)
        return self._views[class_name, tag]

    def _node(self, class_name: str, tag: str) -> Any:
        return self._scene.GetSingletonNode(tag, class_name)

    def _of(self, class_name: str) -> list[QWidget]:
        return [view for (kind, _), view in self._views.items() if kind == class_name]

    def viewport(self) -> QWidget:
        return self._viewport

    def layoutLogic(self) -> Any:
        return self._logic

    def setLayout(self, layout: int) -> None:
        self._logic.GetLayoutNode().SetViewArrangement(layout)

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(tag for kind, tag in self._views if kind == "vtkMRMLSliceNode")

    def sliceWidget(self, name: str) -> qMRMLSliceWidget | None:
        return self._views.get(("vtkMRMLSliceNode", name))

    def threeDWidget(self, index: int) -> qMRMLThreeDWidget | None:
        return dict(enumerate(self._of("vtkMRMLViewNode"))).get(index)

    def plotWidget(self, index: int) -> qMRMLPlotWidget | None:
        return dict(enumerate(self._of("vtkMRMLPlotViewNode"))).get(index)

    def tableWidget(self, index: int) -> qMRMLTableWidget | None:
        return dict(enumerate(self._of("vtkMRMLTableViewNode"))).get(index)

    def activeThreeDRenderer(self) -> Any:
        return self.threeDWidget(0).threeDView().renderWindow().GetRenderers().GetFirstRenderer()

    def mrmlSliceLogics(self) -> Any:
        return self._application_logic.GetSliceLogics()

    def mrmlViewLogics(self) -> Any:
        return self._application_logic.GetViewLogics()

    def resetSliceViews(self) -> None:
        for name in self.sliceViewNames():
            self.sliceWidget(name).fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        for view in self._of("vtkMRMLViewNode"):
            view.threeDView().resetFocalPoint()

    layout = Property(int, lambda self: self._logic.GetLayoutNode().GetViewArrangement(), setLayout)
    threeDViewCount = Property(int, lambda self: len(self._of("vtkMRMLViewNode")))
    plotViewCount = Property(int, lambda self: len(self._of("vtkMRMLPlotViewNode")))
    tableViewCount = Property(int, lambda self: len(self._of("vtkMRMLTableViewNode")))
