"""BatchNorm folded into the preceding convolutions, for many passes of one network in evaluation mode."""

from collections import Counter
from typing import cast

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lra.networks.generators import DoublingConvolution
from lra.networks.normalized import Normalized
from lra.networks.small_images import CoveringConvolution

WRITTEN_HERE = ("lra", "torch", "torchvision")
"""Packages whose modules always compute the same in evaluation mode, so that they can be examined once."""

LINEAR = (nn.Conv2d, DoublingConvolution, CoveringConvolution)
"""Convolutions whose outputs scale with their weights and bias."""


@torch.no_grad()
def folded(network: nn.Module) -> nn.Module:
    """``network`` in evaluation mode, with each BatchNorm folded into the convolution whose only consumer it is.

    Equal except for rounding, with fewer passes over maps, as long as the weights do not change; everything else is
    shared with ``network``. A network is returned as it is if there is nothing to fold, if it has hooks, if it is not
    from this toolkit, torch or torchvision, or if its control flow depends on its input; external parts run as a whole.
    """
    if is_hooked(network):
        return network
    if isinstance(network, Normalized):
        body = folded(network.network)
        if body is network.network:
            return network
        return Normalized(body, network.mean.flatten(), network.std.flatten()).to(network.mean)
    parts = list(network.modules())
    if (
        not any(type(part) is nn.BatchNorm2d for part in parts)
        or any(part.training for part in parts)
        or _is_foreign(network)
    ):
        return network
    try:
        traced = fx.GraphModule(network, _Tracer().trace(network))
    except (ValueError, RuntimeError, TypeError):
        return network
    return traced if _fold(traced) else network


def is_hooked(network: nn.Module) -> bool:
    """Whether a pass calls hooks of the network or of one of its parts."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def _is_foreign(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] not in WRITTEN_HERE


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_foreign(m) or isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


def _fold(traced: fx.GraphModule) -> int:
    """Fold in place what can be folded; returns the number of layers."""
    called = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    count = 0
    for node in traced.graph.nodes:
        before = node.args[0] if node.op == "call_module" and len(node.args) == 1 else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        convolution, norm = traced.get_submodule(str(before.target)), traced.get_submodule(str(node.target))
        if type(convolution) not in LINEAR or type(norm) is not nn.BatchNorm2d or norm.running_mean is None:
            continue
        if called[before.target] == called[node.target] == 1:
            traced.set_submodule(str(before.target), fuse_conv_bn_eval(cast(nn.Conv2d, convolution), norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
            count += 1
    traced.delete_all_unused_submodules()
    traced.recompile()
    return count
