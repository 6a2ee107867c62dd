"""What Triton loads: a Llama of 70 billion parameters, simulated."""

from triton_models.simulated_llama import SimulatedLlama
from triton_models.simulation import LLAMA_70B


class TritonPythonModel(SimulatedLlama):
    timing = LLAMA_70B
