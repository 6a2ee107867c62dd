"""What Triton loads: the sentence embedder."""

from triton_models.embedder.serving import Embedder


class TritonPythonModel(Embedder):
    pass
