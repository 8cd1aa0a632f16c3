"""Counts, over all records, that reference answers score full marks and wrong ones nothing.

    python -m bench.task_counts maths --data FOLDER      writes bench/results/task_counts_maths.json

FOLDER holds gsm8k/train.jsonl.gz, gsm8k/test.jsonl and minif2f/minif2f_lean4_yangky11.jsonl; what is not there is
skipped and said to be. There is no Lean in it: of miniF2F it counts that each statement is read, and which proofs
reach the checker, whose part a stub plays.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks import EvalConfig, Prompt, Task, TaskConfig, TaskError, build_task, difficulty_of
from tasks.answers import NUMBER

RESULTS = Path(__file__).parent / "results" / "task_counts_maths.json"
EXCEPTIONS_SHOWN = 40
GENERATED = 1000
ENTRIES = 20
# Those without which a data set cannot be built.
PARAMS = {
    "composite": {"datasets": [{"name": name, "weight": 1, "config": {}} for name in ("chain_sum", "gcd", "maze")]}
}


JUDGED_BY_RULES = "its entries name no answer: any that keeps the rules is right, and its own judge is all there is"
# Why a set of records has exceptions, for each that has.
REASONS = {
    "reasoning_gym ab": "the right answer of that entry is the empty text",
    "reasoning_gym boxnet": JUDGED_BY_RULES,
    "reasoning_gym graph_color": JUDGED_BY_RULES,
    "reasoning_gym propositional_logic": JUDGED_BY_RULES,
    "reasoning_gym rubiks_cube": JUDGED_BY_RULES,
    "reasoning_gym rush_hour": JUDGED_BY_RULES,
    "reasoning_gym game_of_life_halting": "its judge takes any text for a yes, which is right in most entries: it is "
    "no task to train on",
}


@dataclass
class Count:
    """What became of one set of records."""

    name: str
    records: int = 0
    right: int = 0
    """Reference answers that scored 1."""
    wrong: dict[str, list[int]] = field(default_factory=dict)
    """For each way to spoil an answer: how many scored 0, of how many."""
    difficulties: dict[str, int] = field(default_factory=dict)
    exceptions: list[str] = field(default_factory=list)

    def add_right(self, place: str, answer: str, score: float) -> None:
        self.records += 1
        self.right += score == 1.0
        if score != 1.0:
            self.exceptions.append(f"{place}: the reference {answer!r:.100} scores {score:g}")

    def add_wrong(self, place: str, way: str, answer: str, score: float) -> None:
        counted = self.wrong.setdefault(way, [0, 0])
        counted[0] += score == 0.0
        counted[1] += 1
        if score != 0.0:
            self.exceptions.append(f"{place}: {way} {answer!r:.100} scores {score:g}")

    def as_json(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "references_scoring_1": self.right,
            "mutants_scoring_0": {way: f"{zero}/{total}" for way, (zero, total) in self.wrong.items()},
            "difficulties": dict(sorted(self.difficulties.items())),
            "exceptions": self.exceptions[:EXCEPTIONS_SHOWN],
            "reason": REASONS.get(self.name, "unknown") if self.exceptions else None,
            "exceptions_not_shown": max(0, len(self.exceptions) - EXCEPTIONS_SHOWN),
        }


Mutants = Callable[[Any], Iterator[tuple[str, str]]]


def count_task(name: str, task: Task, write: Callable[[Any], str], mutate: Mutants) -> Count:
    """Scores the reference of every prompt as `write` writes it, and what `mutate` makes of it."""
    count = Count(name)
    for index in range(len(task)):
        prompt = task.prompt(index)
        place = f"record {index + 1}"
        count.add_right(place, write(prompt.reference), score(task, prompt, write(prompt.reference)))
        for way, text in mutate(prompt.reference):
            count.add_wrong(place, way, text, score(task, prompt, text))
        difficulty = difficulty_of(task, index)
        if difficulty is not None:
            count.difficulties[difficulty] = count.difficulties.get(difficulty, 0) + 1
    return count


def score(task: Task, prompt: Prompt, completion: str) -> float:
    async def ask() -> float:
        value: Any = task.reward(prompt, completion)
        return float(await value if hasattr(value, "__await__") else value)

    return asyncio.run(ask())


def mutate_number(reference: str) -> Iterator[tuple[str, str]]:
    """A last number that is another one, however it is written."""
    (match,) = NUMBER.finditer(reference)
    number = match[0].lstrip("-−$")
    yield "another number", f"The answer is {number}1."
    yield "one more", f"The answer is {float(number.replace(',', '')) * (-1 if '-' in match[0] else 1) + 1:g}."
    if float(number.replace(",", "")) != 0:
        sign = "" if match[0].startswith(("-", "−", "$-")) else "-"
        yield "other sign", f"The answer is {sign}{number}."
    yield "empty", ""
    yield "answer in the middle", f"{reference}, or rather {number}1."


def mutate_box(reference: str) -> Iterator[tuple[str, str]]:
    yield "another number", f"\\boxed{{{reference}+1}}"
    yield "other sign", f"\\boxed{{-({reference})}}"
    yield "empty", ""
    yield "empty box", "\\boxed{}"
    yield "no box", f"The answer is ${reference}$."
    yield "answer in the middle", f"\\boxed{{{reference}}}, or rather $\\boxed{{{reference}+1}}$"
    yield "cut off", f"\\boxed{{{reference}"


def mutate_expression(reference: dict[str, Any]) -> Iterator[tuple[str, str]]:
    solution = reference["solution"]
    numbers = re.findall(r"\d+", solution)
    yield "another number", solution.replace(numbers[0], str(int(numbers[0]) + 1000), 1)
    yield "one more", f"{solution} + 1"
    yield "other sign", f"0 - ({solution})"
    yield "empty", ""
    yield "target alone", str(reference["target"])
    yield "answer in the middle", f"{solution}, or rather {numbers[0]} + 1000"


def count_gsm8k(data: Path) -> Iterator[Count]:
    for split, file in (("train", "train.jsonl.gz"), ("test", "test.jsonl")):
        task = build_task(TaskConfig(name="gsm8k", path=str(data / "gsm8k" / file)))
        yield count_task(f"gsm8k {split}", task, lambda reference: f"So the answer is {reference}.", mutate_number)


def count_math() -> Iterator[Count]:
    """Ours: the rights in the texts of MATH are contested, so none of them is here."""
    file = Path(__file__).parents[1] / "tests" / "tasks" / "data" / "math.jsonl"
    task = build_task(TaskConfig(name="math", path=str(file)))
    yield count_task("math (own records)", task, lambda reference: f"Thus $\\boxed{{{reference}}}$.", mutate_box)


def count_gsm8k_boxed(data: Path) -> Iterator[Count]:
    """The box and math-verify, over many numbers."""
    fields = {"answer": "boxed", "answer_pattern": "#### (.+)"}
    task = build_task(TaskConfig(name="gsm8k", path=str(data / "gsm8k" / "test.jsonl"), **fields))
    yield count_task("gsm8k test, boxed", task, lambda reference: f"Thus $\\boxed{{{reference}}}$.", mutate_box)


def count_generated() -> Iterator[Count]:
    cases: list[tuple[str, dict[str, Any]]] = [
        ("countdown", {}),
        ("countdown", {"numbers": 3, "operations": 1}),
        ("countdown", {"numbers": 4, "use_all": True, "largest": 25}),
        ("countdown", {"numbers": 2, "operators": "+-*", "largest": 20, "ordered": True}),
        ("countdown", {"numbers": 6, "largest": 100, "largest_target": 999}),
    ]
    for name, params in cases:
        task = build_task(TaskConfig(name=name, size=GENERATED, params=params))
        label = f"{name} {json.dumps(params)}"
        yield count_task(label, task, lambda reference: reference["solution"], mutate_expression)
    for steps in (1, 2, 4):
        task = build_task(TaskConfig(name="word_problems", size=GENERATED, params={"steps": steps}))
        yield count_task(f"word_problems steps {steps}", task, lambda reference: f"{reference}.", mutate_number)


def count_minif2f(data: Path) -> Iterator[Count]:
    """Statements, and what of a proof reaches the checker: the stub accepts one proof, of whatever theorem."""
    from tasks.lean.stub import StubServer

    proof = "by\n  simp_all"
    stub = StubServer([proof])
    try:
        for split in ("valid", "test"):
            file = str(data / "minif2f" / "minif2f_lean4_yangky11.jsonl")
            task = build_task(TaskConfig(name="minif2f", path=file, split=split, params={"server": stub.url}))
            count = count_task(
                f"minif2f {split} (stub, no Lean)", task, lambda s: f"{s.claim} := {proof}", mutate_proof
            )
            yield count
    finally:
        stub.close()


def mutate_proof(statement: Any) -> Iterator[tuple[str, str]]:
    claim, proof = statement.claim, "by\n  simp_all"
    yield "empty", ""
    yield "sorry", f"{claim} := by sorry"
    yield "sorry behind a step", f"{claim} := {proof}\n  sorry"
    yield "admit", f"{claim} := by admit"
    yield "native_decide", f"{claim} := by native_decide"
    yield "another proof", f"{claim} := by\n  ring"
    yield "another name", f"theorem other{claim.removeprefix('theorem')} := {proof}"
    yield "claim weakened", f"{claim} ∨ True := {proof}"
    yield "axiom before", f"axiom x : False\n{claim} := {proof}"
    yield "notation before", f'local notation "ℝ" => Unit\n{claim} := {proof}'
    yield "theorem again", f"{claim} := {proof}\n\n{claim} := {proof}"
    yield "eval behind", f"{claim} := {proof}\n\n#eval 1"
    yield "axioms printed", f"{claim} := {proof}\n\n#print axioms {statement.name}"


def count_reasoning_gym() -> Iterator[Count]:
    """Of each data set, whether its own answers score 1 by its own judge, and empty or foreign ones less."""
    import reasoning_gym  # noqa: F401  importing the package fills DATASETS
    from reasoning_gym.factory import DATASETS

    for dataset in sorted(DATASETS):
        count = Count(f"reasoning_gym {dataset}")
        try:
            params = PARAMS.get(dataset, {})
            config = TaskConfig(name="reasoning_gym", dataset=dataset, params=params, answer="dataset", size=ENTRIES)
            task = build_task(config)
            for index in range(ENTRIES):
                prompt = task.prompt(index)
                answer = prompt.reference["answer"]
                if answer is None:
                    count.exceptions.append(f"entry {index} names no answer of its own")
                    continue
                count.add_right(f"entry {index}", str(answer), score(task, prompt, str(answer)))
                for way, text in (("empty", ""), ("no answer", "I do not know.")):
                    value = score(task, prompt, text)
                    # Some judges give a little for anything: what counts is that it is no full mark.
                    count.add_wrong(f"entry {index}", way, text, 0.0 if value < 1.0 else value)
                if (difficulty := difficulty_of(task, index)) is not None:
                    count.difficulties[difficulty] = count.difficulties.get(difficulty, 0) + 1
        except TaskError as error:
            count.exceptions.append(f"cannot be built without task.params: {error}")
        except Exception as error:  # The data sets are others' code: whatever one raises is its exception.
            count.exceptions.append(f"{type(error).__name__}: {error}")
        yield count


def count_disjoint() -> Iterator[Count]:
    """Training prompts that are evaluation prompts: none."""
    for name, params in (("countdown", {"operations": 1}), ("word_problems", {"steps": 1})):
        config = TaskConfig(name=name, params=params, eval=EvalConfig(size=100))
        train, held = build_task(config), build_task(config, "eval")
        asked = {train.prompt(index).messages[0]["content"] for index in range(len(train))}
        count = Count(f"{name}: evaluation prompts that are asked in training")
        for index in range(len(held)):
            text = held.prompt(index).messages[0]["content"]
            count.add_right(f"prompt {index}", text, float(text not in asked))
        yield count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["maths"])
    parser.add_argument("--data", type=Path, default=os.environ.get("RAPID_DATA"), help="or RAPID_DATA")
    arguments = parser.parse_args()
    begin, counts, skipped = time.monotonic(), [], []
    sources: list[tuple[str, Callable[[], Iterator[Count]]]] = [
        ("math", count_math),
        ("generated", count_generated),
        ("disjoint", count_disjoint),
        ("reasoning_gym", count_reasoning_gym),
    ]
    data = arguments.data
    for name, make in (("gsm8k", count_gsm8k), ("gsm8k", count_gsm8k_boxed), ("minif2f", count_minif2f)):
        if data is None or not (Path(data) / name).is_dir():
            skipped.append(f"{make.__name__}: no {name} in the folder of --data")
        else:
            sources.append((name, lambda make=make: make(Path(data))))  # type: ignore[misc]
    for _, make_counts in sources:
        for count in make_counts():
            counts.append(count)
            print(f"{count.name:60} {count.right}/{count.records} {len(count.exceptions)} exceptions", flush=True)
    record = {
        "command": "python -m bench.task_counts maths --data FOLDER",
        "lean": "none: of minif2f a stub of the checker's protocol answers",
        "skipped": skipped,
        "seconds": round(time.monotonic() - begin, 1),
        "counts": {count.name: count.as_json() for count in counts},
    }
    RESULTS.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for line in skipped:
        print(f"skipped {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
