"""What Triton loads: a model that holds the interpreter."""

from benchmarks.triton.switched import Spinning


class TritonPythonModel(Spinning):
    pass
