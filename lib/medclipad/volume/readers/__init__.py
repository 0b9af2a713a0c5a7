"""Read volume files: one module per family of formats, each with its checks beside it."""
