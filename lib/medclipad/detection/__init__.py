"""The detector: fit, detect, save and load, and what these need."""
