"""What is the same in every batch of a model instance: its names, its place, its coefficients."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from metering.apportion import (
    BUILT_IN,
    COEFFICIENTS,
    ApportionmentRule,
    kind_named,
    rule_named,
)
from metering.calibrations import CalibrationBook, InvalidCalibration, read_calibrations
from metering.errors import MeteringError
from metering.names import fault_of
from metering.prices import UNKNOWN, UNKNOWN_GPU
from metering.records import CONSTANT, RuleRecipe
from metering.usage import OTHER_OPERATION, Operation

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Facts:
    """One model instance in one process. ``rule`` divides its batches' time; ``recipe`` tells it to
    others, where they have it too. ``device`` names the accelerator on its host."""

    source: str
    boot_id: str
    model: str
    model_version: str
    instance: str
    accelerator: str
    device: str
    region: str
    deployment: str
    speedup: int
    rule: ApportionmentRule
    recipe: RuleRecipe | None

    def constant(self) -> dict[str, Any]:
        """The fields of a usage event that are the same in every batch."""
        return {name: getattr(self, name) for name in CONSTANT}


@dataclass(frozen=True, slots=True)
class Process:
    """Where the instance runs; ``boot_id`` names one start of one server on one host's boot."""

    host: str
    boot_id: str
    process_id: str


def this_process() -> Process:
    """Read from /proc. A pid alone can come again, a pid and its start time can't."""
    machine_boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    server = os.getppid()
    return Process(
        socket.gethostname(),
        f"{machine_boot[:8]}-{server}-{_start_ticks(server)}",
        f"{os.getpid()}-{_start_ticks(os.getpid())}",
    )


def parameters_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The ``parameters`` of a model's config.pbtxt, as Triton hands them over in JSON."""
    return {
        name: str(value.get("string_value", ""))
        for name, value in config.get("parameters", {}).items()
    }


def warm_ups_of(config: Mapping[str, Any]) -> int:
    """How many batches each instance executes for ``model_warmup`` before it can be reached."""
    return sum(max(1, int(w.get("count", 0))) for w in config.get("model_warmup", []))


def facts_of(args: Mapping[str, str], env: Mapping[str, str], process: Process) -> Facts:
    """From what Triton passes to ``initialize``; a model's config goes before the environment.

    ``METER_SIM_SPEEDUP`` goes before the config's ``speedup``, for simulated accelerators only.

    Raises:
        MeteringError: a parameter that is to be a number is none, or a name can't be one.
    """
    given = parameters_of(json.loads(args["model_config"]))
    instance = args["model_instance_name"]
    accelerator = given.get("accelerator") or _unnamed_accelerator(args)
    speedup = 1
    if "speedup" in given:
        text = env.get("METER_SIM_SPEEDUP") or given["speedup"]
        speedup = _whole("speedup", text, at_least=1)
    rule, recipe = _rule(given, _calibrations(env), args["model_name"], accelerator)
    facts = Facts(
        source=f"{process.host}/{process.boot_id}/{process.process_id}/{instance}",
        boot_id=process.boot_id,
        model=args["model_name"],
        model_version=args["model_version"],
        instance=instance,
        accelerator=accelerator,
        device=given.get("device") or _device_of(args),
        region=given.get("region") or env.get("METER_REGION") or "local",
        deployment=given.get("deployment") or env.get("METER_DEPLOYMENT") or "default",
        speedup=speedup,
        rule=rule,
        recipe=recipe,
    )
    return _named(facts)


def _unnamed_accelerator(args: Mapping[str, str]) -> str:
    """``cpu`` only where Triton has placed the instance there. With KIND_MODEL a model chooses."""
    kind = args.get("model_instance_kind", "CPU").removeprefix("KIND_")
    return {"CPU": "cpu", "GPU": UNKNOWN_GPU}.get(kind, UNKNOWN)


def _device_of(args: Mapping[str, str]) -> str:
    """``gpu-0`` or ``cpu``, as Triton has placed the instance."""
    kind = args.get("model_instance_kind", "CPU").removeprefix("KIND_")
    if kind == "GPU":
        return f"gpu-{args.get('model_instance_device_id', '0')}"
    return "cpu" if kind == "CPU" else UNKNOWN


def operation_of(given: object, model: str) -> Operation:
    """Raises MeteringError: it is none that an event can have; then the model must not load, for it
    would serve and not be metered."""
    choices = [name for name in get_args(Operation) if name != OTHER_OPERATION]
    if given not in choices:
        raise MeteringError(
            f"operation={given!r} of model {model!r} is none of {', '.join(choices)}. "
            "Set it in the class of the model"
        )
    return given  # type: ignore[return-value]  # it is one of them


def _named(facts: Facts) -> Facts:
    """Raises MeteringError: one of the names can't be in an event."""
    for name in CONSTANT:
        value = getattr(facts, name)
        if isinstance(value, str) and (fault := fault_of(value)):
            raise MeteringError(f"{name}={value!r:.80}: {fault}")
    return facts


def _rule(
    given: Mapping[str, str], calibrations: CalibrationBook, model: str, accelerator: str
) -> tuple[ApportionmentRule, RuleRecipe | None]:
    """What was calibrated goes before the coefficients in the config; without either, an equal
    split. The parameter ``apportionment`` names the rule, and its version (``equal-split/1``) where
    that is not to be the newest."""
    name, version = _rule_name(given.get("apportionment") or "affine-shapley")
    kind = kind_named(name, version)
    own = {c: _whole(c, given[c], at_least=0) for c in COEFFICIENTS if c in given}
    rule, calibration = rule_named(name, own, version=version), None
    calibrated = calibrations.latest(model, accelerator, name)
    if calibrated is not None:
        rule, own = calibrated.as_rule(version), calibrated.coefficients_ps
        calibration = calibrated.version
    if name not in BUILT_IN:
        return rule, None
    return rule, RuleRecipe(name, tuple(own.items()), calibration, kind.version)


def _rule_name(text: str) -> tuple[str, int | None]:
    """``NAME`` or ``NAME/VERSION``."""
    name, _, version = text.rpartition("/")
    if name and version.isascii() and version.isdecimal():
        return name, int(version)
    return text, None


def _calibrations(env: Mapping[str, str]) -> CalibrationBook:
    """Of the file that ``METER_CALIBRATION`` names. One that can't be read is said in the server's
    log and left alone: it never keeps a model from loading."""
    path = env.get("METER_CALIBRATION")
    if not path:
        return CalibrationBook()
    try:
        return read_calibrations(Path(path))
    except InvalidCalibration as exc:
        logger.error("METER_CALIBRATION: %s; the models' own coefficients hold", exc)
        return CalibrationBook()


def _whole(name: str, text: str, at_least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = at_least - 1
    if number < at_least:
        raise MeteringError(f"{name}={text!r} is not a whole number from {at_least} on")
    return number


def _start_ticks(pid: int) -> str:
    # Field 22; the command's name, in brackets, may hold spaces.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
