"""The HTTP application: our routes around the app object that MONAI Label loads.

MONAI Label's own endpoints are not used: they run inference on the event loop, so that the server stops answering, they
write wherever an id points, and they answer 500 without a reason. Those without a use here (/model, /proxy, /batch,
/logs, ...) are not offered.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from medclipad.compat import ensure_pydicom_storage_uids, ensure_torchvision

ensure_pydicom_storage_uids()
ensure_torchvision()

from fastapi import FastAPI  # noqa: E402

from medclipad.server import error_handlers  # noqa: E402
from medclipad.server.process_lifetime import own_temporary_folder  # noqa: E402
from medclipad.server.routes import active, datastore, infer, info, marks, train, versions  # noqa: E402
from medclipad.server.security.guard import Guard  # noqa: E402
from medclipad.server.services import current_app  # noqa: E402

TOKEN = "MEDCLIPAD_TOKEN"  # environment variable, so that no process list shows it


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    monai_label_app = current_app()
    monai_label_app.server_mode(True)
    services = monai_label_app.services
    with own_temporary_folder():
        services.start()
        yield
        services.stop()


def create_app(token: str | None) -> FastAPI:
    """Return the ASGI application.

    Parameters
    ----------
    token
        Access token that every request must carry; None for none.
    """
    app = FastAPI(title="MedCLIPAD", lifespan=_lifespan)
    for module in (info, infer, train, versions, active, datastore, marks):
        app.include_router(module.router)
    app.state.token = token is not None  # whether there is one, for GET /info/
    error_handlers.install(app)
    app.add_middleware(Guard, token=token)
    return app


app = create_app(os.environ.pop(TOKEN, None))
