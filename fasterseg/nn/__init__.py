"""Torch modules of the network and the torch engine. The only inference code that imports torch."""
