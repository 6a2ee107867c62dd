"""The ``meter`` command: help that helps, and errors that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from metering.errors import MeteringError
from streams.cli import main
from streams.cli.common import running_settings
from streams.cli.demo import MARK, empty
from streams.cli.main import COMMANDS as COMMANDS_OF_METER
from streams.cli.main import SUMMARIES, command_of, meter
from streams.stack.config import Endpoints
from streams.stack.groups import read_process
from streams.stack.running import ENDPOINTS_FILE

ALL = {name: command_of(name) for name in COMMANDS_OF_METER}
GROUPS = {name: c for name, c in ALL.items() if isinstance(c, click.Group)}
LEAVES: dict[str, click.Command] = {
    **{name: c for name, c in ALL.items() if name not in GROUPS},
    **{f"{name} {own}": c for name, group in GROUPS.items() for own, c in group.commands.items()},
}
COMMANDS = sorted(LEAVES)
DOCUMENTS = {"topics asyncapi", "topics schemas"}
"""They print JSON in any case, and ask nobody."""
NOWHERE = "http://127.0.0.1:1"
"""Port 1 is never bound here: who asks is told so at once."""


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in [n for n in os.environ if n.startswith("METER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("METER_CLICKHOUSE", NOWHERE)
    monkeypatch.setenv("METER_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("METER_TRITON_GRPC", "127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    return


def invoke(*args: str) -> Result:
    return CliRunner().invoke(meter, list(args))


def running(folder: Path) -> Endpoints:
    """As a stack in ``folder`` that this process supervises would say of itself."""
    own = read_process(os.getpid())
    assert own is not None
    endpoints = Endpoints(
        kafka="127.0.0.1:19092",
        clickhouse="http://127.0.0.1:18123",
        triton_grpc="127.0.0.1:18001",
        triton_http="127.0.0.1:18000",
        triton_metrics="127.0.0.1:18002",
        folder=folder,
        log_dir=folder / "usage-log",
        price_book=folder / "prices.toml",
        metrics={},
        pids={},
        supervisor_pid=os.getpid(),
        supervisor_started_ticks=own.started_ticks,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ENDPOINTS_FILE).write_text(endpoints.model_dump_json())
    return endpoints


# --- help ----------------------------------------------------------------------------------------


def test_the_first_help_names_every_command_and_where_to_begin() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for command in ALL:
        assert command in result.output
    assert "meter doctor" in result.output
    assert "meter demo" in result.output


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_each_of_its_options(command: str, flag: str) -> None:
    result = invoke(*command.split(), flag)
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: meter {command}")
    sentence = (LEAVES[command].help or "").split("\n\n")[0]
    assert sentence.rstrip().endswith(".")
    for parameter in LEAVES[command].params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in result.output
            assert parameter.help or isinstance(parameter.type, click.Choice), parameter.name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_its_folder_and_json(command: str) -> None:
    options = {o for p in LEAVES[command].params for o in p.opts}
    assert {"--dir", "--json"} <= options or command in DOCUMENTS


def test_the_list_of_commands_says_of_each_what_it_says_of_itself() -> None:
    assert {name: command.short_help for name, command in ALL.items()} == SUMMARIES


HEAVY = {
    "faust",
    "river",
    "tritonclient",
    "pyarrow",
    "aiokafka",
    "chdb",
    "numpy",
    "grpc",
    "aiohttp",
}


@pytest.mark.parametrize(
    ("args", "needed"),
    [
        (["--help"], set()),
        (["sql", "--help"], set()),
        (["top", "--help"], set()),
        (["topics", "--help"], set()),
        (["topics", "apply", "--help"], set()),
        (["replay", "--help"], set()),
        (["up", "--help"], set()),
        (["demo", "--help"], set()),
        (["doctor", "--help"], set()),
        (["sql", "SELECT 1"], set()),
        (["top", "--once"], set()),
        (["topics", "asyncapi"], {"numpy"}),
        (["topics", "schemas"], {"numpy"}),
    ],
    ids=" ".join,
)
def test_a_command_imports_no_vendor_that_it_does_not_need(
    args: list[str], needed: set[str]
) -> None:
    program = (
        "import sys; from streams.cli import main; sys.argv[1:] = sys.argv[1:]\n"
        "try: main()\n"
        f"finally: print('IMPORTED', *sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *args],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("IMPORTED")]
    assert set(line.split()[1:]) <= needed


def test_the_version_is_shown() -> None:
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.output.startswith("meter, version ")


def test_an_unknown_option_is_a_usage_error_that_points_to_the_help() -> None:
    result = invoke("top", "--lst", "5")
    assert result.exit_code == 2
    assert "No such option" in result.output
    assert "--last" in result.output


# --- errors --------------------------------------------------------------------------------------


def run_main(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["meter", *args])
    with pytest.raises(SystemExit) as end:
        main()
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize(
    "args",
    [
        ("top", "--once"),
        ("top", "--json"),
        ("sql", "SELECT 1"),
        ("reconcile",),
        ("topics", "apply"),
    ],
    ids=" ".join,
)
def test_without_a_stack_the_answer_says_what_to_do_and_the_exit_code_is_1(
    args: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_main(monkeypatch, *args, "--dir", "no-stack") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("meter: ")
    assert "No stack runs in no-stack" in err
    assert "HTTPConnection" not in err
    assert "meter up" in err
    assert "--dir" in err
    assert "Traceback" not in err


def test_a_setting_that_can_not_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METER_METRICS_PORT", "many")
    assert run_main(monkeypatch, "sql", "SELECT 1") == 1
    assert "METER_METRICS_PORT" in capsys.readouterr().err


def test_a_clickhouse_url_that_is_none_is_an_error_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for url in ("127.0.0.1:8123", "http://127.0.0.1:99999", "ftp://127.0.0.1"):
        assert run_main(monkeypatch, "sql", "SELECT 1", "--clickhouse", url) == 1
        assert "want http(s)://HOST[:PORT]" in capsys.readouterr().err


def test_a_password_in_a_url_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METER_CLICKHOUSE", "http://meter:hunter2@127.0.0.1:1")
    assert run_main(monkeypatch, "sql", "SELECT 1") == 1
    out, err = capsys.readouterr()
    assert "credentials" in err
    assert "hunter2" not in out + err


def test_a_trace_that_can_not_be_read_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trace.csv").write_text("this,is,no,trace\n1,2,3,4\n")
    assert run_main(monkeypatch, "replay", "trace.csv", "--format", "azure") == 1
    err = capsys.readouterr().err
    assert "trace.csv" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("options", [("--duration", "0"), ("--speed", "0"), ()], ids=" ".join)
def test_a_replay_of_nothing_is_an_error_before_a_stack_is_started(
    options: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "trace.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    args = ("replay", "trace.csv", "--format", "azure", "--dir", "s", *options)
    assert run_main(monkeypatch, *args) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("meter: ")
    assert not (tmp_path / "s").exists()


def test_the_installed_command_ends_without_a_traceback(tmp_path: Path) -> None:
    meter_command = Path(sys.executable).with_name("meter")
    done = subprocess.run(
        [meter_command, "sql", "SELECT 1", "--dir", "no-stack"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=600,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "meter up" in done.stderr
    assert "Traceback" not in done.stderr


# --- which stack is spoken to --------------------------------------------------------------------


def test_a_running_stack_goes_before_the_environment_and_the_command_line_before_it(
    tmp_path: Path,
) -> None:
    endpoints = running(tmp_path / "stack")
    found = running_settings(tmp_path / "stack")
    assert (found.kafka, found.clickhouse) == (endpoints.kafka, endpoints.clickhouse)
    assert found.log_dir == endpoints.log_dir
    chosen = running_settings(tmp_path / "stack", clickhouse="http://c:1", triton="t:2")
    assert (chosen.clickhouse, chosen.triton_grpc) == ("http://c:1", "t:2")
    assert running_settings(tmp_path / "elsewhere").clickhouse == NOWHERE


# --- a demo begins with nothing ------------------------------------------------------------------


def test_a_demo_refuses_to_empty_a_folder_that_is_no_stacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    assert run_main(monkeypatch, "demo", "--dir", str(folder)) == 1
    err = capsys.readouterr().err
    assert "not a demo's folder" in err
    assert "--dir" in err
    assert (folder / "thesis.tex").read_text() == "years of work"


def test_a_demo_does_not_empty_what_meter_up_has_filled(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "prices.toml").write_text("")
    (tmp_path / "clickhouse").mkdir()
    with pytest.raises(MeteringError, match="not a demo's folder"):
        empty(tmp_path)
    assert (tmp_path / "clickhouse").is_dir()


def test_a_demo_refuses_a_folder_in_which_a_stack_runs(tmp_path: Path) -> None:
    running(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "prices.toml").write_text("")
    with pytest.raises(MeteringError, match="a stack runs in"):
        empty(tmp_path)
    assert (tmp_path / "logs").is_dir()


def test_a_demo_empties_what_an_earlier_one_has_left(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    empty(folder)
    (folder / "logs").mkdir()
    (folder / "kafka" / "data").mkdir(parents=True)
    empty(folder)
    assert [p.name for p in folder.iterdir()] == [MARK]


def test_a_demo_takes_a_folder_that_is_empty_or_not_there(tmp_path: Path) -> None:
    for folder in (tmp_path / "new", tmp_path / "there"):
        if folder.name == "there":
            folder.mkdir()
        empty(folder)
        assert [p.name for p in folder.iterdir()] == [MARK]


def test_doctor_gives_json_and_says_by_its_exit_code_whether_all_that_is_needed_is_there() -> None:
    result = invoke("doctor", "--json", "--dir", "stack")
    checks = json.loads(result.output)
    assert checks
    assert {"name", "found", "ok", "needed", "how_to_get_it"} <= set(checks[0])
    lacking = [c for c in checks if c["needed"] and not c["ok"]]
    assert result.exit_code == (1 if lacking else 0)
    assert all(c["how_to_get_it"] for c in lacking)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_the_help_of_a_command_fits_into_80_columns(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(meter, [*name.split(), "--help"], terminal_width=80).output
    assert shown.startswith("Usage:")
    assert [line for line in shown.splitlines() if len(line) > 80] == []
