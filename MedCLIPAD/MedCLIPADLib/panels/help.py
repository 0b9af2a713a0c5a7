"""Help: the tutorial in five steps."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from MedCLIPADLib import sampledata
from MedCLIPADLib.panels.base import Panel


def tutorial() -> str:
    """Return the tutorial as HTML, put together from parts that can be translated."""
    steps = (
        _("<b>Sample.</b> Press <i>Load the sample</i> at the top, or the button below: a simulated head with a mass."),
        _(
            "<b>Connect.</b> Under Connection, enter the address of a running <tt>medclipad serve</tt> and press "
            "<i>Connect</i>; or press <i>Start a server here</i> at the top. If this computer has none yet, the "
            "button installs one, into a folder of its own."
        ),
        _(
            "<b>Detect.</b> Under Detect, choose the sample volume and press <i>Detect</i>. The map appears over the "
            "slices."
        ),
        _(
            "<b>Look.</b> Under Results, read the verdict. Choose how many false regions per normal scan you accept, "
            "move the threshold, click in the plot or on a row of the table, and press <i>Next suspicious</i> (keys , "
            "and .). In the plot, the arrow keys go from slice to slice."
        ),
        _(
            "<b>Correct and train.</b> Under Correct and label, press <i>Make segmentation</i>, correct it with "
            "<i>Open in Segment Editor</i>, and press <i>Send segmentation as label</i>; mark slices as normal with "
            "the key N and as abnormal with A. Under Train, press <i>Train</i>, compare the old detector with the new "
            "one, and press <i>Use new</i> or <i>Keep old</i>. <i>Next volume</i> loads the volume to label next."
        ),
    )
    purpose = _("<b>Research software: not for diagnosis.</b> The sample volume is simulated; no patient is shown.")
    privacy = _(
        "Nothing is sent before you press Connect, Test connection, Start or Install. Detect sends the voxels, the "
        "geometry and the name in Slicer of the volume to that server, and nothing else; the volume stays in the "
        "server's studies folder."
    )
    items = "".join(f"<li>{step}</li>" for step in steps)
    return f"<p>{purpose}</p><ol>{items}</ol><p>{privacy}</p>"


class HelpPanel(Panel):
    """The section Help."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.ui.helpBrowser.setHtml(tutorial())
        self.on_click(self.ui.loadSampleButton, self.load)

    def load(self) -> None:
        """Load the sample volume and select it."""
        self.parameters.inputVolume = sampledata.load()
