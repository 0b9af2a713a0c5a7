"""Results in the form that other programs read: NIfTI, CSV, JSON, PNG, DICOM and the fields of anomalib."""
