"""`python -m fasterseg`: the umbrella program, also from a source tree that is not installed."""

from __future__ import annotations

from fasterseg.cli.main import run

if __name__ == "__main__":
    run()
