"""Frames in, results out: sources, sinks, the pipeline between them."""
