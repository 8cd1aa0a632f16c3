"""The command line. Every command parses and checks first, and imports what is heavy only then."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="rapid",
    help="Asynchronous actor-learner reinforcement learning for small language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Recipe = Annotated[Path, typer.Argument(help="A TOML file, such as recipes/quickstart.toml.")]
RunName = Annotated[str, typer.Argument(help="The run's name, or its folder.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a field; may be repeated.")
]
RunsFolder = Annotated[Path, typer.Option("--runs", help="Folder that holds the runs.")]


@app.command()
def train(
    recipe: Recipe,
    overrides: Overrides = None,
    run: Annotated[str | None, typer.Option("--run", help="Name of the run and of its folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the resolved configuration, start nothing.")
    ] = False,
) -> None:
    """Train a model as a recipe says."""
    from rapid.recipe import load_recipe

    config = load_recipe(recipe, [*(overrides or []), *([f'run.name="{run}"'] if run else [])])
    if dry_run:
        from rapid.preflight import check_dry

        _tell(check_dry(config, recipe, resume=resume))
        print(config.model_dump_json(indent=2))
        return
    from rapid.preflight import prepare

    plan = prepare(config, recipe, resume=resume)
    _tell(plan.notes)
    from rapid.train import train as train_plan

    train_plan(plan, recipe)


@app.command(name="eval")
def evaluate(
    target: Annotated[
        str,
        typer.Argument(metavar="RECIPE|RUN", help="A TOML file; or a run, for its newest checkpoint."),
    ],
    overrides: Overrides = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="The folder of a checkpoint or snapshot, to evaluate that.")
    ] = None,
    snapshots: Annotated[
        bool, typer.Option("--snapshots", help="All snapshots of the run not evaluated yet, into its eval.jsonl.")
    ] = False,
    k: Annotated[
        str | None, typer.Option("--k", help="Values of k for pass@k, such as 1,8; left out, task.eval.k.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Completions of each prompt; at least the largest k.")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option("--prompts", min=1, help="Only the first evaluation prompts, so many.")
    ] = None,
    greedy: Annotated[
        bool | None, typer.Option("--greedy/--no-greedy", help="Whether to answer once at temperature 0, too.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there.")] = None,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Measure pass@k on the held-out prompts, by the unbiased estimator, with confidence intervals."""
    from rapid.evaluate import Wishes, parse_ks
    from rapid.evaluate import evaluate as ask

    wishes = Wishes(parse_ks(k) if k is not None else None, samples, prompts, greedy)
    ask(target, runs, overrides or [], wishes, checkpoint=checkpoint, snapshots=snapshots, json_file=json_file)


scale_app = typer.Typer(no_args_is_help=True, help="Change a run while it goes on.")
app.add_typer(scale_app, name="scale")


# Otherwise -1 is taken for an option, and the complaint is about that.
@scale_app.command("actors", context_settings={"ignore_unknown_options": True})
def scale_actors(
    number: Annotated[str, typer.Argument(help='How many, or "auto" for the scaling that the recipe names.')],
    run: Annotated[
        str | None, typer.Argument(help="Name, folder, or tcp://HOST:PORT of its hub; left out, the one that goes on.")
    ] = None,
    runs: RunsFolder = Path("runs"),
    force: Annotated[
        bool, typer.Option("--force", help="Also more than the machines there are can hold, without actors.max.")
    ] = False,
) -> None:
    """Have so many actors from now on."""
    from rapid.scale import scale_actors as ask

    print(ask(number, run, runs, force=force), flush=True)


@app.command()
def top(
    run: Annotated[
        str | None,
        typer.Argument(help="A run's name, its folder, or its hub as tcp://HOST:PORT; left out, the one that goes on."),
    ] = None,
    runs: RunsFolder = Path("runs"),
    once: Annotated[bool, typer.Option("--once", help="Show one frame, and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line at each refresh; with --once one document.")
    ] = False,
    refresh_s: Annotated[
        float, typer.Option("--refresh", metavar="SECONDS", min=0.1, max=3600, help="Time between two refreshes.")
    ] = 1.0,
) -> None:
    """Watch a run: its parts, reward, lag, rates, waits and ledger. In a pipe, one line at each refresh."""
    from rapid.top import top as watch

    watch(run, runs, once=once, as_json=as_json, refresh_s=refresh_s)


@app.command()
def report(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="The run's name, or its folder; or several.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where the page goes.")] = None,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Write report.html and the plots of a run, or compare several runs on one page."""
    from rapid.inspection import write_report

    print(write_report(names, runs, out), flush=True)


@app.command()
def ledger(run: RunName, runs: RunsFolder = Path("runs")) -> None:
    """Show where every prompt of a run is, and the sum that must add up."""
    from rapid.inspection import print_ledger

    print_ledger(run, runs)


@app.command()
def doctor() -> None:
    """Say what this machine can run, and what is missing."""
    from rapid.doctor import print_diagnosis

    raise typer.Exit(print_diagnosis())


def main() -> None:
    """Entry point: 2 for what the user can mend before anything started, 1 for a run that failed, 130 for Ctrl-C."""
    from rapid.errors import RunFailedError, StartInterruptedError, UsageError, is_disk_full

    try:
        app(standalone_mode=True)
    except UsageError as error:
        sys.exit(_fail(error, 2))
    except RunFailedError as error:
        sys.exit(_fail(error, 1))
    except StartInterruptedError as error:
        sys.exit(_fail(error, 130))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # Those of the folders below explain themselves; of others the traceback is wanted.
        if isinstance(error, OSError) and is_disk_full(error):
            what = error.filename or "the output"
            sys.exit(_fail(f"{what} cannot be written: {error.strerror}; free some space, and try again", 1))
        if not _explains_itself(error):
            raise
        sys.exit(_fail(error, 1))


def _explains_itself(error: Exception) -> bool:
    from actors.engine import EngineError
    from buffer.errors import BufferFault
    from telemetry.errors import TelemetryError

    return isinstance(error, EngineError | BufferFault | TelemetryError)


def _tell(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"rapid: {note}", file=sys.stderr)


def _fail(error: Exception | str, status: int) -> int:
    print(f"rapid: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
