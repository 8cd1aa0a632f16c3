"""RAPID's table: `python -m bench.rapid_table bench/plans/small.toml`. See docs/experiments.md.

Runs every arm on every task with every seed of a plan, going on from wherever it was interrupted, and prints the table.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from bench.table.experiment import Experiment, Selection
from rapid.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results" / "rapid_table"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.rapid_table", description=__doc__)
    parser.add_argument("plan", type=Path, help="a TOML file, such as bench/plans/small.toml")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="only these")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="only these arms, or sets of arms")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="only these")
    parser.add_argument("--max-minutes", type=float, metavar="N", help="begin no run that would not end within them")
    parser.add_argument("--tune", action="store_true", help="search the plan's learning rates, instead of the runs")
    parser.add_argument("--report", action="store_true", help="print and draw what is there; run nothing")
    parser.add_argument("--list", action="store_true", help="list the runs and how far they are; run nothing")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of what is kept")
    parser.add_argument("--work", type=Path, default=Path("runs") / "rapid_table", help="folder of runs under way")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """0 when nothing is left, 1 when runs failed, 2 for what is to be mended first, 130 after Ctrl-C."""
    options = parse(arguments)
    asked = []

    def ask(signum: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(signum)
        print("ending the run under way; once more ends at once", file=sys.stderr, flush=True)

    try:
        selection = Selection(options.tasks, options.arms, options.seeds)
        experiment = Experiment.read(options.plan, options.results, options.work, selection, is_tuning=options.tune)
        if options.list:
            print(experiment.listing())
            return 0
        if options.report:
            print(experiment.report())
            return 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, ask)
        status = experiment.run(options.max_minutes, lambda: bool(asked))
    except UsageError as error:
        print(f"rapid_table: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, above all
        print(f"rapid_table: {error}; what has ended is kept, and the same command goes on", file=sys.stderr)
        return 1
    return 130 if asked else status


if __name__ == "__main__":
    sys.exit(main())
