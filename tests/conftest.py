"""Settings for all tests: one torch thread, and the same hypothesis examples in every run."""

import torch
from hypothesis import settings

torch.set_num_threads(1)

# no deadline: no test may depend on the machine's speed
settings.register_profile("repeatable", max_examples=50, deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")
