"""The sections of the module's panel.

They keep no state of their own: that is in MRML, the session or the settings.
"""
