"""torch.nn's recurrent modules on a GPU: laid out for cuDNN, and asked whether it is cuDNN that runs them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..task.contest import TorchContestant

__all__ = ["CUDNN", "ran_by"]

CUDNN = "cuDNN"
NEAR = 8  # nodes behind an output among which cuDNN's would be


def ran_by(contestant: TorchContestant) -> str:
    """Who runs a torch.nn module: `CUDNN`, or torch's own kernels step by step, with what is to be said of it.

    The weights are brought into one piece first. torch does that itself but for bfloat16, which cuDNN takes from 9.13
    on; in pieces they would be copied at every call.
    """
    module: Any = contestant.forward
    x = contestant.x.detach()[:2]
    if x.device.type != "cuda":
        return "torch's own kernels on the CPU"
    flat = in_one_piece(module)
    with torch.enable_grad():
        output, _ = module(x)
    if not any("cudnn" in name.lower() for name in nodes_behind(output)):
        return f"torch's own kernels, step by step: its cuDNN {torch.backends.cudnn.version()} does not take {x.dtype}"
    return CUDNN if flat else f"{CUDNN}, which copies its weights at every call"


def in_one_piece(module: nn.RNNBase) -> bool:
    """Lay the weights out as cuDNN reads them; whether they lie so."""
    weights: list[Any] = module._flat_weights
    if weights[0].dtype != torch.bfloat16:
        module.flatten_parameters()
        return True
    from torch.backends.cudnn import rnn

    given = (module.input_size, rnn.get_cudnn_mode(module.mode), module.hidden_size, module.proj_size)
    try:
        with torch.no_grad():
            torch.ops.aten._cudnn_rnn_flatten_weight(
                weights, 4 if module.bias else 2, *given, module.num_layers, module.batch_first, module.bidirectional
            )
    except RuntimeError:
        return False
    return True


def nodes_behind(output: torch.Tensor) -> list[str]:
    """The names of the last operations that an output came from."""
    found: list[str] = []
    waiting = [output.grad_fn]
    while waiting and len(found) < NEAR:
        node = waiting.pop(0)
        if node is not None:
            found.append(node.name())
            waiting += [before for before, _ in node.next_functions]
    return found
