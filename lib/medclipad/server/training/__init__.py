"""Training processes, and the versions that they make."""
