"""`medclipad-monailabel`: MONAI Label's own command, made to start on pydicom 3 and with this server's routes.

MONAI Label 0.8.5 imports pydicom-seg, which fails on pydicom 3, before it loads any app: no app can mend that.
"""

from __future__ import annotations

import sys

from medclipad.compat import ensure_monailabel, ensure_torchvision

OURS = {"--uvicorn_app": "medclipad.server.app:app", "--host": "127.0.0.1"}
"""Options of `start_server` that have another default here: MONAI Label's routes block, and it listens everywhere."""

_SHORT = {"--host": "-i"}


def main() -> None:
    """Run MONAI Label's command with the arguments of this one."""
    ensure_monailabel()
    ensure_torchvision()
    from monailabel.main import Main

    if sys.argv[1:2] == ["start_server"]:
        given = {argument.partition("=")[0] for argument in sys.argv}
        for option, value in OURS.items():
            if not given & {option, _SHORT.get(option, option)}:
                sys.argv += [option, value]
    Main().run()
