"""What Triton loads: the tiny language model."""

from triton_models.tiny_llm.serving import TinyLlm


class TritonPythonModel(TinyLlm):
    pass
