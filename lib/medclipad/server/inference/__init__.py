"""Detections for requests: one at a time, off the event loop, cancellable, stored once computed."""
