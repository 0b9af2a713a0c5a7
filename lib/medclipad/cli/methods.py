"""The command `medclipad methods`."""

from __future__ import annotations

from medclipad.methods import default_method, get_method, method_names


def methods() -> None:
    """List the methods, and what each cannot train without."""
    from medclipad.cli.terminal import print_table

    rows = []
    for name in method_names():
        method = get_method(name)
        mark = " (default)" if name == default_method() else ""
        needs = ", ".join(kind for kind in ("normal", "abnormal", "masks") if kind in method.needs)
        rows.append((f"{name}{mark}", needs, method.summary))
    print_table(("method", "needs", "what it is"), rows)
