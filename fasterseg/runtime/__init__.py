"""Running an engine: uint8 BGR frames in, uint8 class ids out. No torch."""
