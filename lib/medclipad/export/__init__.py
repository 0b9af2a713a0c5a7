"""Results as files that other programs read: NIfTI, CSV, JSON, pictures and DICOM."""
