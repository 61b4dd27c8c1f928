"""The work of the commands of `bayes-dasl`, whose options are in `bayes_dasl.cli`."""

import dataclasses
import json as as_json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from shlex import quote
from typing import Any, NoReturn

import pandas as pd
import typer
from rich.markup import escape
from rich.table import Table

from ._findings import Diagnosis, Level
from ._runs.console import LastingConsole
from ._runs.folder import read_note
from ._runs.signals import heard_like_ctrl_c
from ._runs.user_code import place_in_user_code
from .data.dates import in_words
from .errors import BayesDaslError, DataError, Interrupted, ReadError
from .many.comparison import rows_of, summarised
from .many.many import ALONE
from .prediction.posterior import fitted_observables
from .prediction.save_and_load import load
from .reports._text import number, percent
from .study import (
    Run,
    Study,
    change_run,
    folder_name,
    future_forcings,
    future_times,
    is_trusted,
    module_of,
    new_observations,
    new_rows,
    studies_and_data,
    verdicts_of_runs,
    write_study,
)
from .weighting.judged_mixtures import MIXTURE

EXIT_CODES: dict[Level, int] = {
    "good": 0,
    "inconclusive": 0,
    "warning": 3,
    "bad": 4,
}
"""Exit codes of `--strict` by the worst finding; Typer uses 2 itself."""

console = LastingConsole(highlight=False)
_IN_A_FILE = 160
"""Width of tables that are written to a file."""
_SYMBOLS = {
    "good": "[green]✓[/]",
    "inconclusive": "[blue]?[/]",
    "warning": "[yellow]![/]",
    "bad": "[red]✕[/]",
}


@contextmanager
def _short_errors(*, quiet: bool = False, json: bool = False) -> Iterator[None]:
    """Print errors that the user can correct as one line, without a traceback.

    Args:
        quiet: whether to print errors alone.
        json: whether what is printed inside goes to the error stream, so that the output holds
            nothing but the JSON that follows.
    """
    console.quiet = quiet
    # SIGTERM and SIGHUP stop a run like Ctrl-C, so that draws are kept.
    with heard_like_ctrl_c() as came, redirect_stdout(sys.stderr) if json else nullcontext():
        try:
            yield
        except Interrupted as stop:
            _stop(str(stop), came)
        except KeyboardInterrupt:
            _stop(
                "stopped: nothing is half-written; run the same command again, or bayes-dasl "
                "resume, to go on",
                came,
            )
        except Exception as error:
            said = _error_in_words(error)
            if said is None or os.environ.get("BAYES_DASL_TRACEBACK"):
                raise
            LastingConsole(stderr=True, highlight=False).print(
                f"[red]error:[/] {escape(said)}", soft_wrap=True
            )
            raise typer.Exit(1) from None


def _error_in_words(error: Exception) -> str | None:
    """Return an error in one line, with its place in the user's code; None for one of ours."""
    place = place_in_user_code(error)
    if isinstance(error, BayesDaslError):
        # Code that raises such an error says itself what is wrong.
        return str(error) if place is None or "(raise " in place else f"{place}: {error}"
    if place is None or isinstance(error, typer.Exit):
        return None
    return f"{place}: {type(error).__name__}: {' '.join(str(error).split())}"


def _stop(said: str, came: list[int]) -> NoReturn:
    """Print a message and exit with 128 plus the number of the signal, as shells do."""
    console.print(f"\n[yellow]{escape(said)}[/]", soft_wrap=True)
    raise typer.Exit(128 + (came[0] if came else signal.SIGINT)) from None


def _exit_by(levels: Iterable[Level | None]) -> None:
    """Exit with the code of the worst level; parts without a check have level None."""
    raise typer.Exit(max((EXIT_CODES[level] for level in levels if level is not None), default=0))


def _load_study(name: str) -> Study:
    """Return the study of a case study or a Python file.

    Raises:
        ReadError: if there is no such file, or it makes no study.
    """
    # The file is executed here.
    module = module_of(name)
    path = Path(str(module.__file__))
    if not callable(getattr(module, "study", None)):
        raise ReadError(f"{path} defines no function study() that returns a bd.Study")
    made = module.study()
    if not isinstance(made, Study):
        raise ReadError(f"study() of {path} returns {type(made).__name__}, not a bd.Study")
    # A full path, so that the run can be continued from another directory.
    return dataclasses.replace(made, source=str(path) if name.endswith(".py") else name)


def _load_run(folder: Path, trust: bool) -> Run:
    """Return the run in a folder, whose study file is executed.

    Raises:
        ReadError: if the folder holds no run, its study is missing, or the file is not trusted.
    """
    note = read_note(folder)
    source = note.get("source")
    if not source:
        raise ReadError(f"{folder} was made in Python, from no study file: use bd.Study.run there")
    if not trust and not is_trusted(source, folder):
        raise ReadError(
            f"{folder} names {source} as its study, which lies outside of the working directory or "
            "in the run folder, and this command would execute it: read that file, then add --trust"
        )
    try:
        return Run(change_run(_load_study(source), **note.get("overrides", {})), folder)
    except ReadError as error:
        # The folder names the study by its path.
        moved = (
            f"if the study has moved, bayes-dasl run NEW.py --out {quote(str(folder))} goes on "
            "with this run"
        )
        raise ReadError(f"{error}; {moved}") from None


def new(
    name: str,
    table: Path,
    value: Sequence[str] | None,
    forcing: Sequence[str] | None,
    time: str | None,
    subject: str | None,
    force: bool,
) -> None:
    """Write a study file for a table."""
    with _short_errors():
        columns = {"values": value, "forcings": forcing, "time": time, "subject": subject}
        path, said = write_study(name, table, force=force, **columns)
        for line in said:
            _say(line)
        _say(f"written: {path}")
        _say(f"next: bayes-dasl check {path}, then bayes-dasl run {path} --quick")


def list_studies(json: bool) -> None:
    """Name the case studies."""
    with _short_errors(json=json):
        found = studies_and_data()
    if json:
        return _print_json(found)
    for study in found:
        console.print(f"[bold]{study['name']}[/]  {escape(study['summary'])}", soft_wrap=True)
        facts = {"field": study["field"], "run time": study["run_time"], "data": study["data"]}
        told = ", ".join(f"{word}: {fact}" for word, fact in facts.items() if fact)
        if told:
            _say(f"    {told}")


def list_runs(folder: Path, json: bool) -> None:
    """Name the runs in a folder, with their verdicts."""
    found = verdicts_of_runs(folder)
    if json:
        return _print_json(found)
    if not found:
        return _say(f"there is no run in {folder}: make one by bayes-dasl run")
    shown = ("folder", "study", "written", "forecast", "sampling", "model")
    # An unfinished run has no verdict yet.
    rows = [{name: run[name] or "–" for name in shown} for run in found]
    table = pd.DataFrame(rows).assign(CRPS=[number(run["crps"]) for run in found])
    _print_table("", table)


def check(study: str, key: int, strict: bool, json: bool) -> None:
    """Print the checks of each model; the exit code is that of the worst."""
    with _short_errors(json=json):
        checks = _load_study(study).check(key=key)
    if json:
        _print_json({name: result.to_dict() for name, result in checks.items()})
    else:
        for name, result in checks.items():
            _print_findings(name, result)
    levels: list[Level] = [result.level for result in checks.values()]
    # Only models that cannot be fitted make the command fail.
    _exit_by(level for level in levels if strict or level == "bad")


def run(
    study: str,
    out: Path | None,
    key: int,
    quick: bool,
    draws: int | None,
    engine: str | None,
    strict: bool,
    quiet: bool,
) -> None:
    """Fit, forecast, mix, score and report."""
    with _short_errors(quiet=quiet):
        loaded = change_run(_load_study(study), quick=quick, draws=draws, engine=engine)
        folder = out or Path("runs") / folder_name(loaded)
        try:
            done = loaded.run(folder, key=key, progress=_bar(quiet), say=_say)
        except Interrupted as stop:
            named = _quoted(folder, not is_trusted(loaded.source, folder))
            raise Interrupted(
                f"{stop}\nGo on with one of\n"
                f"  bayes-dasl report {named}   # forecast and report from the draws so far\n"
                f"  bayes-dasl resume {named}   # the rest of the draws"
            ) from None
        _print_verdict(done, strict)


def _bar(quiet: bool) -> bool | None:
    """Return whether to show a progress bar; None shows it on a terminal."""
    return False if quiet else None


def many(
    study: str,
    quick: bool,
    scheduler: str | None,
    workers: int | None,
    out: Path | None,
    only: Sequence[str] | None,
    table: bool,
    quiet: bool,
) -> None:
    """Run the many fits of a study on workers, save a row for each, and print a table."""
    with _short_errors(quiet=quiet):
        # 1. Do the tasks that have no row yet.
        module = module_of(study)
        name = module.__name__.rpartition(".")[2].removeprefix(ALONE).replace("_", "-")
        # A study file outside of any package has a module name with a prefix.
        folder = out or Path("runs") / f"{name}-study"
        rows = rows_of(
            module,
            folder,
            quick=quick,
            only=only or (),
            only_held=table,
            scheduler=scheduler,
            workers=workers,
            say=_say,
        )
        # 2. Leave out the tasks that failed.
        errors = rows["failed"].dropna() if "failed" in rows else pd.Series()
        if len(errors):
            _say(f"{len(errors)} of {len(rows)} tasks failed, such as by {errors.iloc[0]}")
            rows_left = rows.drop(index=errors.index, columns="failed")
        else:
            rows_left = rows
        # 3. Table the others. The summary may need tasks that --only excludes.
        try:
            tables = summarised(module, rows_left, folder) if len(rows_left) else {}
        except BayesDaslError as error:
            if not only:
                raise
            tables = {}
            _say(f"the study makes no tables of these tasks alone: {error}")
        for title, found in tables.items():
            _print_table(title, found)
        console.print(f"rows: {folder / 'rows.jsonl'}", markup=False, soft_wrap=True)
        if len(errors):
            raise DataError(
                f"{len(errors)} of {len(rows)} tasks failed: the same command tries again"
            )


def resume(run: Path, strict: bool, trust: bool, quiet: bool) -> None:
    """Go on with a run that was stopped or killed; the draws are those of an uninterrupted one."""
    with _short_errors(quiet=quiet):
        loaded = _load_run(run, trust)
        # The same key, so that the draws are those of an uninterrupted run.
        key = int(read_note(run)["key"])
        done = loaded.study.run(run, key=key, progress=_bar(quiet), say=_say)
        _print_verdict(done, strict)


def diagnose(run: Path, strict: bool, trust: bool, json: bool) -> None:
    """Say whether the fits of a run can be trusted, and what to do if not."""
    with _short_errors(json=json):
        loaded = _load_run(run, trust)
        verdicts = loaded.diagnose()
    judged = {name: verdict.to_dict() for name, verdict in verdicts.items()}
    if json:
        _print_json(judged)
    else:
        for name, verdict in verdicts.items():
            _print_findings(name, verdict)
    if strict:
        _exit_by(_levels(judged, loaded.study.label))


def forecast(
    run: Path,
    until: str | None,
    step: float,
    forcing: Path | None,
    what_if: bool,
    trust: bool,
    quiet: bool,
) -> None:
    """Forecast further ahead from the posteriors of a run, and save the forecasts."""
    with _short_errors(quiet=quiet):
        loaded = _load_run(run, trust)
        if forcing is not None:
            at = future_forcings(loaded.study, forcing, until)
            _say_if_unused(loaded, forcing, trust)
        elif until is not None:
            at = future_times(loaded.study, until, step)
        else:
            raise DataError(
                "say until when to forecast, by --until, or give a file of forcings, by --forcing"
            )
        for name in loaded.forecast(at, what_if=what_if, say=_say):
            console.print(
                f"{name}: {loaded.path(name, 'forecast.nc')}", markup=False, soft_wrap=True
            )


def _say_if_unused(loaded: Run, forcing: Path, trust: bool) -> None:
    """Say if a file of forcings has new observations, which a forecast does not use."""
    posterior = loaded.path(loaded.study.label, "posterior.nc")
    fitted = fitted_observables(load(posterior)) if posterior.is_file() else None
    new = new_observations(loaded.study, forcing, fitted)
    if new:
        # The user must not think that these values were used.
        number = "1 observation" if new == 1 else f"{new} observations"
        found = f"{forcing} holds {number} that the data of the run and its posterior lack"
        files = f"{quote(str(loaded.folder))} {_quoted(forcing, trust)}"
        take = f"bayes-dasl update {files}"
        _say(f"{found}: the forecast does not use them; to take them in, first run {take}")


def _quoted(path: Path, trust: bool) -> str:
    """Return a path as the last argument of a command, with `--trust` if that is needed."""
    return quote(str(path)) + (" --trust" if trust else "")


def update(run: Path, data: Path, key: int, trust: bool, quiet: bool) -> None:
    """Take new observations into the posteriors of a run; the next forecast begins after them."""
    with _short_errors(quiet=quiet):
        loaded = _load_run(run, trust)
        rows = new_rows(loaded.study, data)
        for name, post in loaded.update(rows, progress=_bar(quiet), key=key).items():
            last = in_words(fitted_observables(post)[loaded.study.index].values[-1])
            _say(f"{name}: knows the data up to {last} by {post.attrs['updated_by']}")
        named = _quoted(run, trust)
        _say(
            f"forecast on by bayes-dasl forecast {named}, or show all by bayes-dasl report {named}"
        )


def report(run: Path, what_if: bool, strict: bool, trust: bool, quiet: bool) -> None:
    """Forecast, score and write report.html again from the posteriors of a run."""
    with _short_errors(quiet=quiet):
        loaded = _load_run(run, trust)
        loaded.finish(what_if=what_if, say=_say)
        _print_verdict(loaded, strict)


def _print_table(title: str, found: pd.DataFrame | Path) -> None:
    """Print a table, or the path of a figure."""
    if isinstance(found, Path):
        return console.print(f"{title}: {found}", markup=False, soft_wrap=True)
    # A plain numbering of the rows says nothing.
    flat = found if isinstance(found.index, pd.RangeIndex) else found.reset_index()
    shown = Table(title=escape(title), title_justify="left")
    for name in flat.columns:
        shown.add_column(escape(str(name)), overflow="fold")
    for row in flat.itertuples(index=False):
        shown.add_row(
            *(number(cell) if isinstance(cell, float) else escape(str(cell)) for cell in row)
        )
    # A pipe has no width, and Rich would assume 80 columns.
    wide = not console.is_terminal and "COLUMNS" not in os.environ
    (LastingConsole(highlight=False, width=_IN_A_FILE) if wide else console).print(shown)


def _print_json(found: Any) -> None:
    """Print one JSON document."""
    print(as_json.dumps(found, indent=2, ensure_ascii=False))


def _say(text: str) -> None:
    """Print a line as it is, of any length."""
    console.print(text, markup=False, soft_wrap=True)


def _print_findings(name: str, result: Diagnosis) -> None:
    """Print a verdict and its findings."""
    console.print(f"[bold]{escape(name)}[/]: {escape(result.verdict)}", soft_wrap=True)
    for finding in result.findings:
        # Only faults have a remedy.
        remedy = f" → {finding.remedy}" if finding.remedy else ""
        text = escape(f"{finding.subject}: {finding.message}{remedy}")
        console.print(f"  {_SYMBOLS[finding.level]} {text}", soft_wrap=True)


def _split_words(where: Any) -> str:
    """Return where data were split: a number, a date, or held-out groups."""
    if isinstance(where, dict):
        # Held-out groups, such as `subject 6, 11`.
        return "; ".join(f"{dim} {', '.join(map(str, groups))}" for dim, groups in where.items())
    return f"after {where}" if isinstance(where, str) else f"after {where:g}"


def _print_verdict(done: Run, strict: bool) -> None:
    """Print scores and verdicts; if `strict`, exit with the code of the verdicts."""
    found = as_json.loads((done.folder / "scores.json").read_text(encoding="utf-8"))
    # 1. The scores of models and baselines, with a star at the lowest CRPS.
    scores = {**found["scores"], **found["baselines"]}
    # "all" is the mean over observables.
    rows = {name: by_observable["all"] for name, by_observable in scores.items()}
    best = min((row["crps"] for row in rows.values() if row["crps"] is not None), default=None)
    columns = "forecast", "CRPS", "RMSE", "90 % coverage"
    table = Table(*columns, title=_split_words(found["split"]), title_justify="left")
    for name, row in rows.items():
        star = " ★" if best is not None and row["crps"] == best else ""
        crps = number(row["crps"]) + star
        table.add_row(escape(name), crps, number(row["rmse"]), percent(row["coverage_90"]))
    console.print(table)
    # Scores of values that were learned meanwhile would mislead.
    if updated := found.get("updated"):
        _say(
            f"{' and '.join(updated)} took in new data: what was fitted since is scored here too, "
            "and is no forecast"
        )
    # 2. The mixture and the verdicts.
    for sentence in (found.get("mixture") or {}).get("words", []):
        console.print(sentence, markup=False, soft_wrap=True)
    verdicts = found["diagnosis"]
    for name, verdict in verdicts.items():
        console.print(
            f"{_SYMBOLS[verdict['level']]} {escape(name + ': ' + verdict['verdict'])}",
            soft_wrap=True,
        )
    console.print(f"report: {done.folder / 'report.html'}", markup=False, soft_wrap=True)
    if strict:
        _exit_by(_levels(verdicts, done.study.label))


def _levels(verdicts: Mapping[str, Mapping[str, Any]], own: str) -> list[Level | None]:
    """Return the levels that count: sampling of all models, fit of the study's and the mixture."""
    return [
        *(verdict["sampling"] for verdict in verdicts.values()),
        *(verdicts[name]["model"] for name in (own, MIXTURE) if name in verdicts),
    ]
