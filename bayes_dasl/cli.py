"""The commands of `bayes-dasl` and their options.

The work of the commands is in `bayes_dasl.commands`, which loads JAX. Help, completion and errors
in options need only this file.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 for a command that did its work, 1 for an error, 2 for a wrong call; 130 "
    "after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP. check ends with 4 if a model cannot be "
    "fitted. --strict also judges: 3 if there are reservations about the sampling of a model, or "
    "about the fit of the study's own model or of the mixture, and 4 if one of these is not to be "
    "relied on. A traceback is shown if the variable BAYES_DASL_TRACEBACK is set.",
    pretty_exceptions_enable=False,
)


def study_names(incomplete: str) -> list[str]:
    """Complete the name of a case study or a Python file, without loading it.

    Args:
        incomplete: the first letters.

    Returns:
        The case studies, and Python files in the working directory.
    """
    found = find_spec("case_studies")
    folders = [Path(place) for place in (found.submodule_search_locations or ())] if found else []
    files = [path for folder in folders for path in sorted(folder.glob("[!_]*.py"))]
    names = [path.stem.replace("_", "-") for path in files]
    names += [path.name for path in sorted(Path().glob("*.py"))]
    return [name for name in names if name.startswith(incomplete)]


StudyName = Annotated[
    str,
    typer.Argument(
        help="A case study's name, or a Python file that defines study().",
        autocompletion=study_names,
    ),
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder, such as runs/lynx-hare.")]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Execute the study file that the folder names, wherever it lies."),
]
WhatIf = Annotated[
    bool,
    typer.Option(
        "--what-if", help="Take the models as the study has them now, though others were fitted."
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="End with 3 if there are reservations, with 4 if it is not to be relied on.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, for a program to read.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors alone.")]


def _print_version(asked: bool) -> bool:
    """Print the version and exit, if the option is given."""
    if asked:
        print(f"bayes-dasl {__version__}")
        raise typer.Exit
    return asked


def _do(command: str, options: dict[str, Any]) -> None:
    """Do the work of a command, whose module loads when it is first used."""
    commands = import_module(".commands", __package__)
    getattr(commands, command)(**options)


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """Turn a half-known equation and data into a calibrated forecast."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the study; NAME.py is written.")],
    table: Annotated[
        Path, typer.Option("--from", help="A CSV or Parquet table, with a row for each time.")
    ],
    value: Annotated[
        list[str] | None,
        typer.Option(help="A column that is forecast; may be repeated. Guessed unless given."),
    ] = None,
    forcing: Annotated[
        list[str] | None,
        typer.Option(help="A column that drives it; may be repeated. Guessed unless given."),
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="The column of times. Guessed unless given.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="The column of subjects. Guessed unless given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace NAME.py if it exists.")] = False,
) -> None:
    """Write a study file for a table, which runs as it is and says what to edit."""
    _do("new", locals())


@app.command(name="list")
def list_studies(json: Json = False) -> None:
    """Name the case studies, with their field, run time and whether their data are here."""
    _do("list_studies", locals())


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="The folder that holds run folders.")] = Path(
        "runs"
    ),
    json: Json = False,
) -> None:
    """Name the runs in a folder, with their verdicts."""
    _do("list_runs", locals())


@app.command()
def check(study: StudyName, key: int = 0, strict: Strict = False, json: Json = False) -> None:
    """Check data, priors, gradients, solver and cost before a long run."""
    _do("check", locals())


@app.command()
def run(
    study: StudyName,
    out: Annotated[
        Path | None,
        typer.Option(help="The run folder; runs/NAME unless given, or runs/NAME-quick and so on."),
    ] = None,
    key: Annotated[
        int, typer.Option(help="The random key: the same key gives the same draws.")
    ] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A first look: few chains, draws and origins.")
    ] = False,
    draws: Annotated[
        int | None, typer.Option(min=1, help="Draws of each chain, in place of the study's.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="An engine in place of the study's, such as NUTS, SVI or Laplace."),
    ] = None,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Fit, forecast, mix, score and report."""
    _do("run", locals())


@app.command()
def study(
    study: StudyName,
    quick: Annotated[
        bool, typer.Option("--quick", help="The few tasks that the study does quickly.")
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="The address of a Dask scheduler; processes of this machine unless given."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="How many processes of this machine; as many as it has cores unless given."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the rows; runs/NAME-study unless given.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Only the tasks with this argument, such as model=hybrid; may be repeated."
        ),
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Do no tasks: table the rows that are there.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Run the many fits of a study on workers, save a row for each, and print a table."""
    _do("many", locals())


@app.command()
def resume(
    run: RunFolder, strict: Strict = False, trust: Trust = False, quiet: Quiet = False
) -> None:
    """Go on with a run that was stopped or killed; the draws are those of an uninterrupted one."""
    _do("resume", locals())


@app.command()
def diagnose(
    run: RunFolder, strict: Strict = False, trust: Trust = False, json: Json = False
) -> None:
    """Say whether the fits of a run can be trusted, and what to do if not."""
    _do("diagnose", locals())


@app.command()
def forecast(
    run: RunFolder,
    until: Annotated[
        str | None, typer.Option(help="The last time to forecast: a number, or a date.")
    ] = None,
    step: Annotated[
        float, typer.Option(help="The time between two forecasts; of dates in days.")
    ] = 1.0,
    forcing: Annotated[
        Path | None,
        typer.Option(
            help="A file .csv or .nc with times and forcings, named as in your table or the data."
        ),
    ] = None,
    what_if: WhatIf = False,
    trust: Trust = False,
    quiet: Quiet = False,
) -> None:
    """Forecast further ahead from the posteriors of a run, and save the forecasts."""
    _do("forecast", locals())


@app.command()
def update(
    run: RunFolder,
    data: Annotated[
        Path,
        typer.Argument(
            help="A file .csv or .nc with new observations, and forcings at their times."
        ),
    ],
    key: Annotated[int, typer.Option(help="The random key of the resampling.")] = 0,
    trust: Trust = False,
    quiet: Quiet = False,
) -> None:
    """Take new observations into the posteriors of a run; the next forecast begins after them."""
    _do("update", locals())


@app.command()
def report(
    run: RunFolder,
    what_if: WhatIf = False,
    strict: Strict = False,
    trust: Trust = False,
    quiet: Quiet = False,
) -> None:
    """Forecast, score and write report.html again from the posteriors of a run."""
    _do("report", locals())
