"""Measurements of accuracy, speed, memory and parity; each module is a command."""
