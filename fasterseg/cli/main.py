"""`fasterseg`: the umbrella over all programs."""

from __future__ import annotations

import sys

import typer

from fasterseg.cli import (
    artefacts,
    bench,
    build,
    cache,
    calibrate,
    doctor,
    infer,
    models,
    search,
    streets,
    verify,
)
from fasterseg.cli.options import EPILOG, new_app, run_app

app = new_app(
    "Real-time semantic segmentation you can deploy, measure and retarget. "
    "Sizes are height x width everywhere."
)
app.info.epilog = EPILOG

app.command("infer", epilog=EPILOG, short_help="Segment an image, a folder, a video or a camera.")(
    infer.infer
)
app.add_typer(bench.app, name="bench", short_help="Time engines on this machine.")
app.add_typer(search.app, name="search", short_help="Train networks; check data sets.")
app.command("export", epilog=EPILOG, short_help="Write a model as ONNX.")(artefacts.export)
app.command("build", epilog=EPILOG, short_help="Build TensorRT engines.")(build.build)
app.command("calibrate", epilog=EPILOG, short_help="Measure activation ranges, for int8.")(
    calibrate.calibrate
)
app.command("verify", epilog=EPILOG, short_help="Compare two engines label by label.")(
    verify.verify
)
app.command("info", epilog=EPILOG, short_help="Tell what an engine file or a model is.")(
    artefacts.info
)
app.add_typer(models.app, name="models", short_help="List, show, import and remove models.")
app.command("doctor", epilog=EPILOG, short_help="Tell what works here, and how to mend the rest.")(
    doctor.doctor
)
app.add_typer(cache.app, name="cache", short_help="List or clear the engines built on first use.")
app.command("streets", epilog=EPILOG, short_help="Render a street clip with exact class maps.")(
    streets.streets
)


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
