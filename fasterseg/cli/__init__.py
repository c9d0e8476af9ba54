"""The command line programs; the only code that prints."""
