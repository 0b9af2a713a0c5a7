"""DICOM: which files belong together, what their frames hold, and the grid they lie on."""
