"""Where the studies are: a folder, or an archive that speaks DICOMweb."""
