"""A small model of your own: random weights, but real matrices, so that tokens take time."""

import numpy as np
import triton_python_backend_utils as pb_utils

from triton_models.emitter.metered import MeteredModel, Served

WIDTH = 128


class TritonPythonModel(MeteredModel):
    operation = "chat"  # OpenTelemetry's gen_ai.operation.name

    def load(self):
        """Called once. ``self.config`` is config.pbtxt as a dict."""
        self.weights = np.random.default_rng(0).standard_normal((WIDTH, WIDTH), dtype=np.float32)

    def serve(self, requests):
        """A dynamic batch: one ``Served`` for each request, in their order."""
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given, cached, wanted = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            for name in ("INPUT_TOKENS", "CACHED_INPUT_TOKENS", "OUTPUT_TOKENS")
        )
        if given.min() < 1 or wanted.min() < 0:
            return Served(error="want at least one input token", by_client=True)
        state = np.ones((int(given.sum() - cached.sum()), WIDTH), np.float32) @ self.weights
        for _ in range(int(wanted.sum())):
            state = np.tanh(state[:1] @ self.weights)
        return Served(
            outputs={"INPUT_TOKENS": given, "OUTPUT_TOKENS": wanted},
            input_tokens=int(given.sum()),  # the cached ones are a part of them
            cached_input_tokens=int(cached.sum()),
            output_tokens=int(wanted.sum()),
        )
