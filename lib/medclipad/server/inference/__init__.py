"""Detections for requests: one at a time, off the event loop, cancelled on request, kept once computed."""
