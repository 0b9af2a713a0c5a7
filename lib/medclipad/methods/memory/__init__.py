"""Memory: the distance of each patch to the nearest patch of normal slices; nothing is trained."""
