"""Search and training; may import torch."""
