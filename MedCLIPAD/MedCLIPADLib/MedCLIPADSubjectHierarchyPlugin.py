"""*Detect anomalies* in the context menu of volumes in the Data tree.

Slicer loads this file by its path and finds the class by the file's name. It outlives a reload of the module, so it
imports nothing of it and looks the panel up when it is needed.
"""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

_RESULT = "MedCLIPAD.result"  # attribute of maps, as in `volumes.py`


class MedCLIPADSubjectHierarchyPlugin:
    """An action for volumes; it owns no items.

    Parameters
    ----------
    scriptedPlugin : qSlicerSubjectHierarchyScriptedPlugin
        Slicer's plugin, which calls this object.
    """

    def __init__(self, scriptedPlugin):
        scriptedPlugin.name = "MedCLIPAD"
        self.action = qt.QAction(scriptedPlugin)
        self.action.connect("triggered()", self.detect)
        slicer.qSlicerSubjectHierarchyPluginHandler.instance().registerPlugin(scriptedPlugin)

    def canOwnSubjectHierarchyItem(self, itemID):
        """Return that no item is owned: volumes belong to Slicer's own plugin."""
        return 0.0

    def itemContextMenuActions(self):
        """Return the actions of this plugin."""
        return [self.action]

    def showContextMenuActionsForItem(self, itemID):
        """Offer the action for volumes, but neither for label maps nor for maps of this module."""
        self.action.text = _("Detect anomalies")  # in the language of now: the action outlives changes of it
        node = self._node(itemID)
        if node is not None and node.IsA("vtkMRMLScalarVolumeNode"):
            self.action.visible = not node.IsA("vtkMRMLLabelMapVolumeNode") and not node.GetAttribute(_RESULT)

    def _node(self, item):
        hierarchy = slicer.qSlicerSubjectHierarchyPluginHandler.instance().subjectHierarchyNode()
        return hierarchy.GetItemDataNode(item) if item and hierarchy is not None else None

    def detect(self):
        """Open the module with the volume, and analyse it."""
        node = self._node(slicer.qSlicerSubjectHierarchyPluginHandler.instance().currentItem())
        if node is not None:
            slicer.util.selectModule("MedCLIPAD")
            slicer.modules.medclipad.widgetRepresentation().self().detect.from_menu(node)
