"""Records from a data set of the Hugging Face hub, from a folder that `datasets` can read, or from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.config import TaskConfig
from tasks.errors import TaskError, UnreachableError, describe_options
from tasks.jsonl import find_file, read_rows
from tasks.records import ChosenRows, RecordTask, select

LOOKUP_TIMEOUT_S = 5.0


def build(config: TaskConfig, split: str) -> RecordTask:
    """The task over a data set, which is downloaded when `datasets` does not have it in its cache."""
    task = RecordTask(config, choose_rows(config, split))
    task.check()
    return task


def choose_rows(config: TaskConfig, split: str) -> ChosenRows:
    """The records of our `split`."""
    origin = source(config, split)
    own_eval = config.eval is not None and (config.eval.path is not None or config.eval.split is not None)
    rows = load_rows(origin)
    is_file = Path(origin.path).expanduser().is_file()
    return select(config, rows, split, own_eval, origin.path if is_file else f"{origin.path} ({origin.split})")


@dataclass(frozen=True)
class Source:
    """Where the records of one of our splits are."""

    path: str
    subset: str | list[str] | None
    split: str


def source(config: TaskConfig, split: str) -> Source:
    """What to read for our `split`."""
    assert config.path is not None
    own = config.eval
    if split == "train" or own is None:
        return Source(config.path, config.subset, config.split)
    if own.path is None:
        return Source(config.path, own.subset or config.subset, own.split or config.split)
    return Source(own.path, own.subset, own.split or config.split)


def load_rows(origin: Source) -> Any:
    """The data set's rows, mapped from disk. Raises TaskError, with what `datasets` said and the remedy."""
    path = origin.path
    if Path(path).expanduser().is_file():
        return read_rows(find_file(path, "task.path"))
    try:
        from datasets import concatenate_datasets, load_dataset
    except ImportError as error:
        raise TaskError(
            f'task.path is "{path}", but datasets, which loads it, cannot be imported ({error}); pip install datasets'
        ) from None
    if not Path(path).expanduser().exists():
        prefer_cache_without_hub(path)
    subsets = origin.subset if isinstance(origin.subset, list) else [origin.subset]
    try:
        return concatenate_datasets([load_dataset(path, subset, split=origin.split) for subset in subsets])
    except ConnectionError as error:
        raise unreachable(path, error) from error
    except Exception as error:  # `datasets` raises a different type for each of a dozen ways to go wrong.
        where = f'"{path}" (subset {origin.subset}, split "{origin.split}")'
        raise TaskError(
            f"task.path names the data set {where}, which cannot be loaded: {error}; "
            "see task.path, task.subset, task.split and task.eval"
        ) from error


def prefer_cache_without_hub(path: str) -> None:
    """Without this, `datasets` retries for 23 s before it looks into its cache."""
    from huggingface_hub import constants

    try:
        look_up(path)
    except UnreachableError:
        constants.HF_HUB_OFFLINE = True


def check_exists(config: TaskConfig) -> None:
    """Looks up the data sets without loading them. Raises TaskError or, without a connection, UnreachableError."""
    for path in {source(config, "train").path, source(config, "eval").path}:
        if not Path(path).expanduser().exists():
            look_up(path)


def look_up(path: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    if Path(path).is_absolute() or path.startswith((".", "~")):
        folder = Path(path).expanduser().parent
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        raise TaskError(f'task.path is "{path}", which does not exist; {describe_options(Path(path).name, names)}')
    try:
        HfApi().dataset_info(path, timeout=LOOKUP_TIMEOUT_S)
    except HFValidationError as error:
        raise TaskError(f'task.path is "{path}"; expected owner/name or a folder: {error}') from None
    except RepositoryNotFoundError:
        raise TaskError(
            f'task.path is "{path}", a data set that the Hugging Face hub does not have or shows only to those who '
            "logged in; check the name, or log in with `hf auth login`"
        ) from None
    except Exception as error:  # Every transport has its own errors; all mean that nobody answered.
        raise unreachable(path, error) from error


def unreachable(path: str, error: Exception) -> UnreachableError:
    return UnreachableError(
        f'task.path is "{path}", and the Hugging Face hub cannot be reached ({type(error).__name__}: {error}); '
        "connect, or download the records and set task.path to the file"
    )
