"""Results and detectors in the form that other programs read: NIfTI, CSV, JSON, PNG, DICOM, anomalib, ONNX."""
