"""Measuring: protocols, device facts, records. No torch."""
