"""The command `medclipad encoders`."""

from __future__ import annotations

from medclipad.encoders import default_encoder, encoder_families


def encoders() -> None:
    """List the families of encoders, with names to give to --encoder. Every method runs on each of them."""
    from medclipad.cli.terminal import print_table

    rows = []
    for family in encoder_families():
        for name in family.examples:
            shown = f"{name} (default)" if name == default_encoder() else name
            rows.append((shown, "yes" if family.has_text else "no", family.summary))
    print_table(("encoder, such as", "text tower", "what it is"), rows)
