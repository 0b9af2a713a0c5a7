"""The HTTP application: our routes around the app object that MONAI Label loads.

MONAI Label's own endpoints are not used: they run inference on the event loop, so that the server stops answering, they
write wherever an id points, and they answer 500 without a reason. Those without a use here (/model, /proxy, /batch,
/logs, ...) are not offered.
"""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from medclipad.compat import ensure_monailabel, ensure_torchvision

ensure_monailabel()
ensure_torchvision()

from fastapi import FastAPI  # noqa: E402

from medclipad.server import error_handlers  # noqa: E402
from medclipad.server.logs import quiet_libraries  # noqa: E402
from medclipad.server.process_lifetime import own_temporary_folder  # noqa: E402
from medclipad.server.routes import active, datastore, health, infer, info, marks, sessions, train, versions  # noqa: E402
from medclipad.server.security.access import Tokens  # noqa: E402
from medclipad.server.security.audit import AUDIT_FILE, open_audit_log  # noqa: E402
from medclipad.server.security.guard import Guard  # noqa: E402
from medclipad.server.services import current_app  # noqa: E402


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    quiet_libraries()
    open_audit_log(os.environ.get(AUDIT_FILE))
    monai_label_app = current_app()
    monai_label_app.server_mode(True)
    services = monai_label_app.services
    with own_temporary_folder():
        services.start()
        # What is loaded by now stays. A garbage collection that looks at all of it stops every answer for .4 s.
        gc.collect()
        gc.freeze()
        yield
        services.stop()


def create_app(tokens: Tokens | None = None) -> FastAPI:
    """Return the ASGI application.

    Parameters
    ----------
    tokens
        Access tokens of which every request must carry one; none for a server that only this machine may use.
    """
    app = FastAPI(title="MedCLIPAD", lifespan=_lifespan, docs_url=None, redoc_url=None)
    for module in (info, health, infer, sessions, train, versions, active, datastore, marks):
        app.include_router(module.router)
    app.state.token = bool(tokens)  # whether there is one, for GET /info/
    error_handlers.install(app)
    app.add_middleware(Guard, tokens=tokens)
    return app


app = create_app(Tokens.from_environment())
