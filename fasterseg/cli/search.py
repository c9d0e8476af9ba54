"""`fasterseg-search`: fit a network to a device, train, and check data."""

from __future__ import annotations

from fasterseg.cli.cosearch import cosearch, pretrain
from fasterseg.cli.data import data_app
from fasterseg.cli.options import EPILOG, new_app, run_app
from fasterseg.cli.retarget import report, search, supernet
from fasterseg.cli.retarget import run as run_retargeting
from fasterseg.cli.show import show
from fasterseg.cli.train import train

app = new_app("Find the network for a device, train networks, and check the data for them.")
app.info.epilog = EPILOG
app.add_typer(data_app, name="data")
app.command(name="run", epilog=EPILOG)(run_retargeting)
app.command(epilog=EPILOG)(supernet)
app.command(epilog=EPILOG)(search)
app.command(epilog=EPILOG)(pretrain)
app.command(epilog=EPILOG)(cosearch)
app.command(epilog=EPILOG)(train)
app.command(epilog=EPILOG)(show)
app.command(epilog=EPILOG)(report)


def run() -> None:
    """Console script `fasterseg-search`."""
    run_app(app)
