"""`fasterseg`: the umbrella over all programs."""

from __future__ import annotations

import sys

import typer

from fasterseg.cli import artefacts, bench, infer, models, streets
from fasterseg.cli.options import EPILOG, new_app, run_app

app = new_app(
    "Real-time semantic segmentation you can deploy, measure and retarget. "
    "Sizes are height x width everywhere."
)
app.info.epilog = EPILOG

app.command("infer", epilog=EPILOG)(infer.infer)
app.add_typer(bench.app, name="bench")
app.command("export", epilog=EPILOG)(artefacts.export)
app.command("verify", epilog=EPILOG)(artefacts.verify)
app.command("info", epilog=EPILOG)(artefacts.info)
app.add_typer(models.app, name="models")
app.command("streets", epilog=EPILOG)(streets.streets)


def _version(value: bool) -> None:
    if value:
        import fasterseg

        print(f"fasterseg {fasterseg.__version__} (Python {sys.version.split()[0]})")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_version, is_eager=True
    ),
) -> None:
    """Options of the umbrella itself."""


def run() -> None:
    """Console script `fasterseg`."""
    run_app(app)
