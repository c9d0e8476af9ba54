"""`fasterseg-search`: check data, train."""

from __future__ import annotations

from fasterseg.cli.data import data_app
from fasterseg.cli.options import EPILOG, new_app, run_app
from fasterseg.cli.train import train

app = new_app("Train networks, and check the data they are trained on.")
app.info.epilog = EPILOG
app.add_typer(data_app, name="data")
app.command(epilog=EPILOG)(train)


def run() -> None:
    """Console script `fasterseg-search`."""
    run_app(app)
