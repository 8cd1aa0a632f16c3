"""Do the code tasks tell right from wrong? `RAPID_DATA=FOLDER python -m bench.code_references`.

Over all records of MBPP, MBPP+, HumanEval and HumanEval+: the record's own program must get 1, mutants of it 0. Each
record where that is not so is listed with the reason. FOLDER holds the files of FILES.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.mutants import compare, mutants
from tasks.code.problems import FORMATS
from tasks.code.task import CodeTask
from tasks.jsonl import read_rows
from tasks.records import ChosenRows
from tasks.sandbox import Limits, WayName

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "task_counts_code.json"
FILES = {
    "mbpp": "mbpp/mbpp.jsonl",
    "mbpp_plus": "mbpp/MbppPlus-OriginFmt.jsonl.gz",
    "humaneval": "humaneval/HumanEval.jsonl.gz",
    "humaneval_plus": "humaneval/HumanEvalPlus-OriginFmt.jsonl.gz",
}
# The tasks' own limits are 3 s and 512 MiB; a record's own program is given more, so that what is right is seen to be,
# and listed if it needs it.
REFERENCE_LIMITS = Limits(time_s=60.0, memory_mib=4096)
TASK_LIMITS = Limits(time_s=3.0, memory_mib=512)
WORKERS = 2


class Examiner:
    """Checks the records of one data set; each thread has sandboxes of its own."""

    def __init__(self, name: str, rows: list[dict[str, Any]], way: WayName) -> None:
        self.name, self.rows, self._way = name, rows, way
        self._chosen = ChosenRows(rows, range(len(rows)), name)
        self._local = threading.local()
        self._tasks: list[CodeTask] = []

    def task(self, limits: Limits) -> CodeTask:
        held: dict[Any, Any] = self._local.__dict__
        if limits not in held:
            held[limits] = CodeTask(self.name, FORMATS[self.name], self._chosen, limits, self._way)
            self._tasks.append(held[limits])
        task: CodeTask = held[limits]
        return task

    def close(self) -> None:
        for task in self._tasks:
            task.close()

    def examine(self, number: int) -> dict[str, Any]:
        """What came of the record's own program and of its mutants."""
        roomy, task = self.task(REFERENCE_LIMITS), self.task(TASK_LIMITS)
        solution = roomy.solution(number)
        names = roomy.suite(number).names
        found: dict[str, Any] = {"id": self.rows[number]["task_id"], "reference": task.judge(number, solution)}
        if not found["reference"].passed:
            start = time.monotonic()
            found["with more"] = roomy.judge(number, solution)
            found["seconds"] = time.monotonic() - start
        found["mutants"] = {}
        for kind, mutant in mutants(solution, names).items():
            passed = task.judge(number, mutant).passed
            found["mutants"][kind] = "passed" if passed else "failed"
            if passed:
                verdict = roomy.judge(number, compare(solution, mutant, names))
                found["mutants"][kind] = "same values" if verdict.passed else f"accepted ({verdict.reason})"
        return found


def summarise(name: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts of one data set, and the records that stand out."""
    kinds = sorted({kind for record in found for kind in record["mutants"]})
    return {
        "records": len(found),
        "references_passed": sum(record["reference"].passed for record in found),
        "references_passed_with_60_s_and_4_gib": sum(
            record["reference"].passed or record["with more"].passed for record in found
        ),
        "mutants": {
            kind: dict(Counter(str(r["mutants"][kind]).split(" (")[0] for r in found if kind in r["mutants"]))
            for kind in kinds
        },
        "references_that_fail": [
            {
                "id": record["id"],
                "reason": record["reference"].reason,
                "with_60_s_and_4_gib": record["with more"].reason or f"passed, in {record['seconds']:.0f} s",
            }
            for record in found
            if not record["reference"].passed
        ],
        "mutants_that_pass": [
            {"id": record["id"], "mutant": kind, "reason": explain(outcome)}
            for record in found
            for kind, outcome in record["mutants"].items()
            if outcome != "failed"
        ],
    }


def explain(outcome: str) -> str:
    if outcome == "same values":
        return "gives the reference's values for every tested call: an equivalent program, or one that the tests miss"
    if "ArithmeticError: equal" in outcome:
        return "gives values that are equal and of other types, such as 1 and True"
    return "gives values that are not equal, which the tests accept: within their tolerance, or as they compare"


def main() -> None:
    """Check all records, print the counts, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("RAPID_DATA"))
    parser.add_argument("--names", nargs="+", default=list(FILES))
    parser.add_argument("--sandbox", default="auto")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if arguments.data is None:
        sys.exit("no data: expected a folder in RAPID_DATA or --data")
    result = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name in arguments.names:
        examiner = Examiner(name, read_rows(Path(arguments.data) / FILES[name]), arguments.sandbox)
        start = time.monotonic()
        with ThreadPoolExecutor(WORKERS) as pool:
            found = list(pool.map(examiner.examine, range(len(examiner.rows))))
            examiner.close()
        result[name] = {
            "file": FILES[name],
            "wall_s": round(time.monotonic() - start, 1),
            "load_average": os.getloadavg()[0],
            **summarise(name, found),
        }
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        shown = {key: value for key, value in result[name].items() if not isinstance(value, list)}
        print(name, json.dumps(shown), flush=True)


if __name__ == "__main__":
    main()
