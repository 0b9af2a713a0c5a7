"""Results as files that other programs read: NIfTI, CSV, JSON, PNG and DICOM."""
