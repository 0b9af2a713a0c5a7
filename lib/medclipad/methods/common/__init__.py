"""Parts that several methods share: losses, layers, learned vectors, token memories and coresets."""
