"""Low-rank fine-tuning: a trained network stays as it is, and small matrices beside its layers learn."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

AnyPolicy = TypeVar("AnyPolicy")


class LowRankLinear(nn.Linear):
    """A frozen linear layer, and beside it a product of two small matrices that learns.

      y = W x + b + U D x,  D: n_in → rank, U: rank → n_out

    U begins at 0, so that at first the layer is the base. See LoRA, Hu et al. 2021 (arXiv 2106.09685); its factor α/r
    is left to the learning rate.

    Args:
        base: its weight and bias, which must be frozen, become this layer's under the same names.
        rank: at least 1.
    """

    def __init__(self, base: nn.Linear, rank: int):
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.down = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)
        self.enabled = True

    def forward(self, x: Tensor) -> Tensor:
        """`[M, n_in]` → `[M, n_out]`."""
        base = super().forward(x)
        return base + functional.linear(functional.linear(x, self.down), self.up) if self.enabled else base

    def merged(self) -> nn.Linear:
        """Return one plain layer that does the same."""
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        plain = plain.to(self.weight.device, self.weight.dtype)
        with torch.no_grad():
            plain.weight.copy_(self.weight + self.up @ self.down)
            if self.bias is not None:
                plain.bias.copy_(self.bias)
        return plain


def add_adapters(policy: object, rank: int) -> None:
    """Freeze a network and put an adapter beside each of its linear layers, in place.

    Everything else of it is frozen too: a Gaussian's standard deviation stays as it was.

    Raises:
        ValueError: if it has no linear layer.
    """
    if not isinstance(policy, nn.Module):
        raise ValueError(f"adapter_rank={rank}: {type(policy).__name__} is no torch.nn.Module, whose layers are known")
    policy.requires_grad_(False)
    layers = [(name, module) for name, module in policy.named_modules() if type(module) is nn.Linear]
    if not layers:
        raise ValueError(f"adapter_rank={rank}: {type(policy).__name__} has no linear layer to put an adapter beside")
    for name, layer in layers:
        _replace(policy, name, LowRankLinear(layer, rank))


def merge_adapters(policy: AnyPolicy) -> AnyPolicy:
    """Return a copy of the network with each adapter added into its layer: of the same size as the base."""
    merged: Any = copy.deepcopy(policy)
    for name, module in list(merged.named_modules()):
        if isinstance(module, LowRankLinear):
            _replace(merged, name, module.merged())
    plain: AnyPolicy = merged.requires_grad_(True)
    return plain


@contextmanager
def without_adapters(policy: Any) -> Iterator[None]:
    """Let the network be its base for a while."""
    adapters = [module for module in policy.modules() if isinstance(module, LowRankLinear)]
    for adapter in adapters:
        adapter.enabled = False
    try:
        yield
    finally:
        for adapter in adapters:
            adapter.enabled = True


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
