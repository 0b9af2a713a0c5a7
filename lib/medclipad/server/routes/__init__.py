"""MONAI Label's HTTP interface, checked and off the event loop: every route is a plain function, run in a thread."""
