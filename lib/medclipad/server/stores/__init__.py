"""Where the studies are: in a folder, or in an archive that speaks DICOMweb."""
