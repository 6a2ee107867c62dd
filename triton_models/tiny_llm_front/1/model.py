"""What Triton loads: the front of the tiny language model."""

from triton_models.emitter.front import MeteredFront


class TritonPythonModel(MeteredFront):
    operation = "text_completion"
