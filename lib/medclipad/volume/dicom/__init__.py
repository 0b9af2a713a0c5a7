"""DICOM: which files belong together, what their frames contain, and the grid they lie on."""
