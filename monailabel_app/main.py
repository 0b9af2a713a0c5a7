"""Entry point of the app, which MONAI Label loads by its path.

The order matters: without the `ensure_...` calls, monailabel cannot be imported.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("monailabel_app") is None:  # the folder was copied, not installed
    sys.path.append(str(Path(__file__).resolve().parent.parent))

from medclipad.server.process_lifetime import end_with_server

end_with_server()

from medclipad.compat import ensure_monailabel, ensure_torchvision  # noqa: E402

ensure_monailabel()
ensure_torchvision()

from monailabel_app.app import MedCLIPADApp  # noqa: E402

__all__ = ["MedCLIPADApp"]
