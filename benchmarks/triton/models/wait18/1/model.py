"""What Triton loads: a model that waits 18 ms per batch."""

from benchmarks.triton.switched import Waiting


class TritonPythonModel(Waiting):
    wait_s = 0.018
