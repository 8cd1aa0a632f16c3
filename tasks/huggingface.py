"""Records from a data set of the Hugging Face hub, from a folder that `datasets` can read, or from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.config import TaskConfig
from tasks.errors import TaskError, UnreachableError, describe_options
from tasks.jsonl import find_file, read_rows
from tasks.records import RecordTask, select

# Records come from disk one by one, so a bad one deep inside costs its prompt and not the start of the run.
RECORDS_CHECKED = 64
LOOKUP_TIMEOUT_S = 5.0


def build(config: TaskConfig, split: str) -> RecordTask:
    """The task over a data set, which is downloaded when `datasets` does not have it in its cache."""
    own_eval = config.eval is not None and (config.eval.path is not None or config.eval.split is not None)
    path, name = source(config, split)
    task = select(config, load_rows(path, config.subset, name), split, own_eval, f"{path} ({name})")
    task.check(RECORDS_CHECKED)
    return task


def source(config: TaskConfig, split: str) -> tuple[str, str]:
    """Path and split to read for our `split`."""
    assert config.path is not None
    if split == "eval" and config.eval is not None:
        return config.eval.path or config.path, config.eval.split or config.split
    return config.path, config.split


def load_rows(path: str, subset: str | None, split: str) -> Any:
    """The data set's rows, mapped from disk. Raises TaskError, with what `datasets` said and the remedy."""
    if Path(path).expanduser().is_file():
        return read_rows(find_file(path, "task.path"))
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise TaskError(
            f'task.name is "huggingface", but datasets cannot be imported ({error}); pip install datasets'
        ) from None
    if not Path(path).expanduser().exists():
        prefer_cache_without_hub(path)
    try:
        return load_dataset(path, subset, split=split)
    except ConnectionError as error:
        raise unreachable(path, error) from error
    except Exception as error:  # `datasets` raises a different type for each of a dozen ways to go wrong.
        where = f'"{path}" (subset {subset}, split "{split}")'
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
    for path in {source(config, "train")[0], source(config, "eval")[0]}:
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
        'connect, or download the records and set task.name = "jsonl" and task.path to the file'
    )
