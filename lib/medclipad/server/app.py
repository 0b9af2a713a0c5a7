"""The HTTP server: MONAI Label's interface over its own app object, with our routes in the place of its endpoints.

Its endpoints run inference on the event loop, so that the server freezes, write wherever an id points, and answer 500
without a reason; those of them that make no sense here (/model, /proxy, /batch, /logs, ...) are not offered at all.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from medclipad.compat import ensure_pydicom_storage_uids, ensure_torchvision

ensure_pydicom_storage_uids()
ensure_torchvision()

from fastapi import FastAPI  # noqa: E402
from monailabel.interfaces.utils.app import app_instance  # noqa: E402

from medclipad.server import error_handlers  # noqa: E402
from medclipad.server.process_lifetime import own_temporary_folder  # noqa: E402
from medclipad.server.routes import active, datastore, infer, info, marks, train, versions  # noqa: E402
from medclipad.server.security.guard import Guard  # noqa: E402
from medclipad.server.services import current_services  # noqa: E402

TOKEN = "MEDCLIPAD_TOKEN"  # environment variable, so that no process list shows it


@asynccontextmanager
async def _life(_: FastAPI) -> AsyncIterator[None]:
    app_instance().server_mode(True)
    services = current_services()
    with own_temporary_folder():
        services.start()
        yield
        services.stop()


def create_app(token: str | None) -> FastAPI:
    """The ASGI application; with a token, every request must carry it."""
    app = FastAPI(title="MedCLIPAD", lifespan=_life)
    for module in (info, infer, train, versions, active, datastore, marks):
        app.include_router(module.router)
    app.state.token = token is not None  # whether there is one, no more
    error_handlers.install(app)
    app.add_middleware(Guard, token=token)
    return app


app = create_app(os.environ.pop(TOKEN, None))
