"""What Triton loads: a model that waits 36 ms per batch."""

from benchmarks.triton.switched import Waiting


class TritonPythonModel(Waiting):
    wait_s = 0.036
