"""Records from a file: .jsonl, .jsonl.gz, or .json holding an array."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from tasks.config import TaskConfig
from tasks.errors import TaskError, describe_options
from tasks.records import FileRows, RecordTask, select

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")


def build(config: TaskConfig, split: str) -> RecordTask:
    """The task over a file; every record is checked, which takes milliseconds a thousand."""
    own_path = config.eval.path if config.eval else None
    path, option = (own_path, "task.eval.path") if split == "eval" and own_path else (config.path, "task.path")
    assert path is not None
    has_own_eval = config.eval is not None and (own_path is not None or config.eval.split is not None)
    task = RecordTask(config, select(config, read_rows(find_file(path, option)), split, has_own_eval, path))
    task.check()
    return task


def find_file(path: str, option: str) -> Path:
    """The file at `path`. Raises TaskError naming what lies beside it when there is none."""
    file = Path(path).expanduser()
    if not file.name.endswith(SUFFIXES):
        raise TaskError(f'{option} is "{path}"; expected a file that ends in {", ".join(SUFFIXES)}')
    if not file.is_file():
        folder = file.parent
        if not folder.is_dir():
            raise TaskError(f'{option} is "{path}"; its folder {folder.absolute()} does not exist')
        names = [entry.name for entry in folder.iterdir() if entry.name.endswith(SUFFIXES)]
        raise TaskError(f'{option} is "{path}", no file in {folder.absolute()}; {describe_options(file.name, names)}')
    return file


def read_rows(file: Path) -> FileRows:
    """All records of a file. Raises TaskError with file and line."""
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TaskError(f"{file} cannot be read: {error}") from None
    if file.name.removesuffix(".gz").endswith(".jsonl"):
        # Not splitlines(): JSON may hold U+2028 and its like unescaped within a text.
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        rows = FileRows(parse_record(line, f"{file}:{number}") for number, line in lines)
        rows.lines = [number for number, _ in lines]
        return rows
    array = parse_json(text, str(file))
    if not isinstance(array, list):
        raise TaskError(
            f"{file} holds {type(array).__name__}; expected an array of records, or one record a line in .jsonl"
        )
    return FileRows(check_record(row, f"record {number} of {file}") for number, row in enumerate(array, start=1))


def parse_record(line: str, place: str) -> dict[str, Any]:
    return check_record(parse_json(line, place), place)


def parse_json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{place} is not JSON: {error}") from None


def check_record(row: Any, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise TaskError(f"{place} is {type(row).__name__}; expected an object with the fields of a record")
    return row
