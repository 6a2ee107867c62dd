"""What Triton loads: a Llama of 8 billion parameters, simulated."""

from triton_models.simulated_llama import SimulatedLlama
from triton_models.simulation import LLAMA_8B


class TritonPythonModel(SimulatedLlama):
    timing = LLAMA_8B
