"""The anomaly-detection methods: each is a folder with a declaration, found by the registry."""

from __future__ import annotations

from medclipad.methods.registry import (
    ADVANCED,
    CountOrAll,
    Method,
    MethodOptions,
    default_method,
    get_method,
    method_names,
    register_method,
)

__all__ = [
    "ADVANCED",
    "CountOrAll",
    "Method",
    "MethodOptions",
    "default_method",
    "get_method",
    "method_names",
    "register_method",
]
