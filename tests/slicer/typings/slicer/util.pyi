# Only known while Slicer, or the harness, is running: every name is Any.
from typing import Any

def __getattr__(name: str) -> Any: ...
