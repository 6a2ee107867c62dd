"""A user's models are found by looking, and what is missing is said with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from metering.errors import StackError
from streams.stack.config import MODELS
from streams.stack.models import known_models, link_models, models_in
from streams.stack.places import REPO

OWN = REPO / "triton_models"


def make(folder: Path, *, config: bool = True, model: str = "1/model.py") -> Path:
    folder.mkdir(parents=True)
    if config:
        (folder / "config.pbtxt").write_text('backend: "python"\n')
    if model:
        (folder / model).parent.mkdir()
        (folder / model).touch()
    return folder


def test_every_model_of_a_folder_is_found_and_loaded_beside_the_projects(tmp_path: Path) -> None:
    make(tmp_path / "chat")
    make(tmp_path / "embed", model="3/model.py")
    (tmp_path / "notes").mkdir()
    make(tmp_path / ".git")
    (tmp_path / "README.md").touch()
    models, load = known_models(OWN, MODELS, [tmp_path])
    assert load == (*MODELS, "chat", "embed")
    assert models["chat"] == tmp_path / "chat"
    assert models["tiny_llm_front"] == OWN / "tiny_llm_front"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"no-such.*is not there.*config\.pbtxt"):
        models_in(tmp_path / "no-such")


def test_a_folder_without_a_model_says_what_a_model_is(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    with pytest.raises(StackError, match=r"holds no model.*NAME/1/model\.py"):
        models_in(tmp_path)


def test_a_model_itself_is_no_folder_of_models(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="is a model itself"):
        models_in(make(tmp_path / "chat"))


def test_a_model_without_its_configuration_or_its_code_is_named(tmp_path: Path) -> None:
    make(tmp_path / "a" / "chat", config=False)
    with pytest.raises(StackError, match=r"chat has no config\.pbtxt"):
        models_in(tmp_path / "a")
    make(tmp_path / "b" / "chat", model="")
    with pytest.raises(StackError, match=r"chat has no 1/model\.py"):
        models_in(tmp_path / "b")


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "embedder")
    with pytest.raises(StackError, match="two models are called 'embedder'"):
        known_models(OWN, MODELS, [tmp_path])


def test_a_name_that_triton_can_not_have_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "my model")
    with pytest.raises(StackError, match="my model"):
        models_in(tmp_path)


def test_a_model_that_is_gone_is_no_longer_linked(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "t w o")
    link_models({"one": one, "two": two}, tmp_path / "links")
    link_models({"two": two}, tmp_path / "links")
    (link,) = (tmp_path / "links").iterdir()
    assert link.name == "two"
    assert (link / "config.pbtxt").is_file()
