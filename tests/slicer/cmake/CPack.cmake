# Packaging needs Slicer's own build.
