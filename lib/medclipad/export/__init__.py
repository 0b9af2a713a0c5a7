"""Results and detectors in the form of other programs: NIfTI, CSV, JSON, PNG, DICOM, anomalib, ONNX, MONAI."""
