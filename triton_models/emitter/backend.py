"""The border to Triton's Python backend: the only file that knows its utilities.

``triton_python_backend_utils`` exists only inside the backend's stub process, so this module
can't be imported anywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # see above
from numpy.typing import NDArray

from triton_models.emitter.identity import Pairs, pairs_of


class Tensor(Protocol):
    def as_numpy(self) -> NDArray[Any]: ...
    def shape(self) -> Sequence[int]: ...


class Request(Protocol):
    """The part of ``pb_utils.InferenceRequest`` that is used here."""

    def request_id(self) -> str: ...
    def parameters(self) -> str: ...
    def inputs(self) -> Sequence[Tensor]: ...
    def requested_output_names(self) -> Sequence[str]: ...
    def correlation_id(self) -> int | str: ...
    def flags(self) -> int: ...
    def timeout(self) -> int: ...
    def is_cancelled(self) -> bool: ...
    def get_response_sender(self) -> Sender: ...


class Sender(Protocol):
    def send(self, response: object, flags: int) -> None: ...


def tensor(request: Request, name: str) -> NDArray[Any]:
    """An input by name, its batch dimension first."""
    found: Tensor = pb_utils.get_input_tensor_by_name(request, name)
    return found.as_numpy()


def rows_of(request: Request) -> int:
    """How Triton counts a request: the batch dimension of its inputs; 0 if it has none."""
    shape = [int(size) for tensor in request.inputs()[:1] for size in tensor.shape()]
    return shape[0] if shape else 0


def parameters_text(request: Request) -> str:
    """The body's parameters, and behind them the forwarded headers, as one JSON object."""
    try:
        return request.parameters()
    except UnicodeDecodeError as exc:  # A header can be of any bytes.
        return exc.object.decode(errors="replace")


def parameters_texts(requests: Sequence[Request]) -> list[str]:
    """Those of a batch, in one go where nothing is wrong with them."""
    try:
        return [request.parameters() for request in requests]
    except UnicodeDecodeError:
        return [parameters_text(request) for request in requests]


def parameters_of(request: Request) -> Pairs:
    """The same, read; unreadable is none."""
    return pairs_of(parameters_text(request))


def answer(outputs: Mapping[str, NDArray[Any]]) -> object:
    """A response; strings are arrays of ``object`` that hold bytes."""
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, np.ascontiguousarray(value)) for name, value in outputs.items()]
    )


def refusal(message: str, *, by_client: bool = False) -> object:
    """An error response for one request; its batch mates are not touched.

    An error ``by_client`` is HTTP's 400 and gRPC's INVALID_ARGUMENT, not 500 and INTERNAL.
    """
    code = pb_utils.TritonError.INVALID_ARG if by_client else pb_utils.TritonError.INTERNAL
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def log_error(message: str) -> None:
    """Into Triton's own log."""
    pb_utils.Logger.log_error(message)


def log_warning(message: str) -> None:
    """Into Triton's own log."""
    pb_utils.Logger.log_warn(message)


def log_info(message: str) -> None:
    """Into Triton's own log."""
    pb_utils.Logger.log_info(message)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a BLS call came back with: an error's text, or the output tensors by name."""

    error: str | None
    outputs: Mapping[str, Tensor]


def call(
    request: Request,
    model: str,
    version: str,
    outputs: Sequence[str],
    parameters: Mapping[str, str | int | bool],
) -> Reply:
    """The same request to another model of this server (BLS); blocks until it is answered.

    The latest version for "". Id, timeout and sequence go along. BLS of Triton 2.51 has no way to
    pass the priority on.
    """
    response = pb_utils.InferenceRequest(
        model_name=model,
        model_version=int(version) if version else -1,
        requested_output_names=list(outputs),
        inputs=request.inputs(),
        request_id=request.request_id(),
        correlation_id=request.correlation_id(),
        flags=request.flags(),
        timeout=request.timeout(),
        parameters=dict(parameters),
    ).exec()
    if response.has_error():
        return Reply(response.error().message(), {})
    return Reply(None, {tensor.name(): tensor for tensor in response.output_tensors()})


def hand_back(outputs: Sequence[Tensor]) -> object:
    """A response of tensors that came from another model, untouched."""
    return pb_utils.InferenceResponse(list(outputs))


def error(message: str, code: str) -> object:
    """An error response; ``code`` is a name of ``pb_utils.TritonError``."""
    return pb_utils.InferenceResponse(
        error=pb_utils.TritonError(message, getattr(pb_utils.TritonError, code))
    )


def send(sender: Sender, response: object) -> None:
    """The one and last response to a request."""
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
