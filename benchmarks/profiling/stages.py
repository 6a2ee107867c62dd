"""Stopwatches around functions, put in from outside: each stage gets the time that no stage inside
of it has taken. One at a time, as the worker's take is."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

from metering.errors import MeteringError

Sites = Mapping[str, tuple[str, ...]]
"""By stage: ``module:name`` or ``module:Class.name``, where the function is looked up when it is
called."""
_END = object()


class Stopwatches:
    def __init__(self, stages: Sites) -> None:
        self.own_ns = dict.fromkeys(stages, 0)
        self._stages = stages
        self._inside: list[int] = []

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Raises MeteringError: a function is not where ``stages`` says."""
        with ExitStack() as patches:
            for stage, sites in self._stages.items():
                for site in sites:
                    owner, name = _found(site)
                    timed = self._timed(stage, owner.__dict__[name])
                    patches.enter_context(patch.object(owner, name, timed))
            yield

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def timed_each(*args: Any, **kwargs: Any) -> Iterator[Any]:
                made = function(*args, **kwargs)
                while True:
                    with self._watch(stage):
                        item = next(made, _END)
                    if item is _END:
                        return
                    yield item

            return timed_each

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._watch(stage):
                return function(*args, **kwargs)

        return timed

    @contextmanager
    def _watch(self, stage: str) -> Iterator[None]:
        self._inside.append(0)
        begun_ns = time.perf_counter_ns()
        try:
            yield
        finally:
            took_ns = time.perf_counter_ns() - begun_ns
            self.own_ns[stage] += took_ns - self._inside.pop()
            if self._inside:
                self._inside[-1] += took_ns


def _found(site: str) -> tuple[Any, str]:
    module, _, path = site.partition(":")
    *owners, name = path.split(".")
    owner: Any = import_module(module)
    for part in owners:
        owner = getattr(owner, part, None)
    if owner is None or name not in owner.__dict__:
        raise MeteringError(f"{site} is not there: profile_worker.py names a stage by it")
    return owner, name
