"""The run that fits a network to a device: measure, search, train, export, report."""
