"""Which models Triton loads: the project's own by name, a user's by looking into folders."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from metering.errors import StackError

CONFIG, MODEL = "config.pbtxt", "model.py"
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def known_models(
    repository: Path, names: Sequence[str], folders: Sequence[Path]
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Every model that there is, with its folder, and the names of those that are to be loaded:
    ``names``, which are in ``repository``, and all in ``folders``.

    Raises:
        StackError: a name without a model, a folder without one, or two models of one name.
    """
    check_models(repository, names)
    found = {f.name: f for f in _folders_in(repository) if (f / CONFIG).is_file()}
    found |= {name: repository / name for name in names}
    wanted = list(names)
    for folder in folders:
        for name, path in models_in(folder).items():
            if name in found:
                raise StackError(f"two models are called {name!r}: {found[name]} and {path}")
            found[name] = path
            wanted.append(name)
    return {name: path.resolve() for name, path in found.items()}, tuple(wanted)


def models_in(folder: Path) -> dict[str, Path]:
    """The models in a user's folder, by name: each a folder with ``config.pbtxt`` and a version,
    such as ``1/model.py``. What is hidden, and what has neither, is passed over.

    Raises:
        StackError: saying what is missing, and where.
    """
    if not folder.is_dir():
        raise StackError(f"the folder of models {folder} is not there; it holds {_LAYOUT}")
    if (folder / CONFIG).is_file():
        raise StackError(f"{folder} is a model itself: name the folder that it is in")
    models: dict[str, Path] = {}
    for path in _folders_in(folder):
        has_config, has_version = (path / CONFIG).is_file(), any(path.glob(f"[0-9]*/{MODEL}"))
        if not (has_config or has_version):
            continue
        if not has_config:
            raise StackError(f"the model {path} has no {CONFIG}; a model is {_LAYOUT}")
        if not has_version:
            raise StackError(f"the model {path} has no 1/{MODEL}; a model is {_LAYOUT}")
        if not _NAME.fullmatch(path.name):
            raise StackError(f"the model {path}: want letters, digits, '_', '.' and '-' in a name")
        models[path.name] = path
    if not models:
        raise StackError(f"the folder {folder} holds no model; it should hold {_LAYOUT}")
    return models


_LAYOUT = f"NAME/{CONFIG} and NAME/1/{MODEL} for each model"


def check_models(repository: Path, models: Sequence[str]) -> None:
    """Raises ``StackError`` for a name that the repository has no model for."""
    for name in models:
        if not _NAME.fullmatch(name) or not (repository / name).is_dir():
            raise StackError(f"no model {name!r} in {repository}")


def link_models(models: Mapping[str, Path], folder: Path) -> None:
    """``folder`` becomes a repository of links to ``models``: one for all, with plain paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.is_symlink():
            old.unlink()
    for name, path in models.items():
        os.symlink(path, folder / name, target_is_directory=True)


def _folders_in(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as exc:
        raise StackError(f"can't read the folder of models {folder}: {exc.strerror}") from exc
    return [e for e in entries if e.is_dir() and not e.name.startswith((".", "_"))]
