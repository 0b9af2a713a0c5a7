"""The sections of the module's panel. They hold no state of their own: that is in MRML, the session or the settings."""
