"""What a layer is given, checked before anything runs: each refusal says what was got and what would fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_batchedtensor, is_functorch_wrapped_tensor

from ..errors import ShapeError
from ..runtime import casting

Lengths = Tensor | Sequence[int]


def check_input(x: Any, width: int, weight: Tensor, batch_first: bool) -> None:
    """x is a floating tensor [T, B, width] (or [T, width]) of the weights' dtype, where they are."""
    if (
        isinstance(x, Tensor)
        and not x.is_nested
        and x.layout == torch.strided
        and x.dim() in (2, 3)
        and x.shape[-1] == width
        and x.dtype == weight.dtype
        and x.device == weight.device
        and x.is_floating_point()
    ):
        return
    if not isinstance(x, Tensor):
        raise ShapeError(f"the input is {type(x).__name__}; give a tensor or a PackedSequence")
    if x.is_nested:
        raise ShapeError("the input is a nested tensor; give it padded, x.to_padded_tensor(0.0), and pass lengths=")
    axes = "[B, T, D]" if batch_first else "[T, B, D]"
    if x.dim() not in (2, 3):
        raise ShapeError(f"the input has {x.dim()} dimensions {list(x.shape)}; give {axes}, or [T, D] for one sequence")
    if x.shape[-1] != width:
        raise ShapeError(
            f"the input's last dimension is {x.shape[-1]} (shape {list(x.shape)}), but the layer has input_size="
            f"{width}; give {axes} with D = {width}"
        )
    if not x.is_floating_point():
        raise ShapeError(f"the input is {x.dtype}; convert it with x.float()")
    if x.layout != torch.strided:
        raise ShapeError(f"the input's layout is {x.layout}; give a dense tensor, x.to_dense()")
    if x.dtype != weight.dtype and not casting(x.device.type):
        raise ShapeError(
            f"the input is {x.dtype}, but the weights are {weight.dtype}; use x.to({weight.dtype}) or "
            f"layer.to({x.dtype})"
        )
    if x.device != weight.device:
        raise ShapeError(
            f"the input is on {x.device}, but the weights are on {weight.device}; move one with .to({weight.device})"
        )


def check_sizes(**sizes: Any) -> None:
    """Each size is a positive whole number."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ShapeError(f"{name} is {value!r}; give a whole number of at least 1")


def lengths_tensor(lengths: Lengths, batch: int, steps: int) -> Tensor:
    """`lengths` as an int64 tensor on the CPU, each within 0..T.

    While a graph is captured (torch.compile, export) the values are not there to be read; the operator checks them
    when it runs.
    """
    if isinstance(lengths, Tensor):
        if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
            raise ShapeError(f"lengths is a tensor of {lengths.dtype}; give whole numbers (int64)")
        if is_batchedtensor(lengths):
            raise ShapeError(
                "vmap runs over lengths, which differ then; put the sequences into one batch, without vmap"
            )
        if lengths.layout != torch.strided or (lengths.is_meta and not torch.compiler.is_compiling()):
            raise ShapeError(
                f"lengths is a {lengths.layout} tensor on {lengths.device}; give a dense tensor [B] that has numbers"
            )
        # a copy: backward reads it again, whatever the caller does with his own by then
        result = lengths.detach().to(device="cpu", dtype=torch.int64).clone(memory_format=torch.contiguous_format)
    else:
        try:
            values = [_whole(n) for n in lengths]
        except TypeError:
            raise ShapeError(f"lengths is {type(lengths).__name__}; give a list of numbers or a tensor [B]") from None
        if not torch.compiler.is_compiling():
            check_lengths(values, steps)  # before they have to fit into 64 bits
        result = torch.tensor(values, dtype=torch.int64, device="cpu")
    if result.dim() != 1 or result.shape[0] != batch:
        raise ShapeError(f"lengths has shape {list(result.shape)}, but the batch has {batch} sequences; give [{batch}]")
    if not torch.compiler.is_compiling():
        check_lengths(result.tolist(), steps)
    return result


def check_lengths(lengths: Sequence[int], steps: int) -> None:
    """Each length is within 0..T."""
    for b, n in enumerate(lengths):
        if n > steps:
            raise ShapeError(f"lengths[{b}] = {n} is longer than the sequence (T = {steps}); pass lengths <= T")
        if n < 0:
            raise ShapeError(f"lengths[{b}] = {n} is negative; pass lengths between 0 and T = {steps}")


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ShapeError(f"lengths holds {value!r} ({type(value).__name__}); give whole numbers")
    return int(value)


def check_states(
    state: Any,
    names: Sequence[str],
    sizes: Sequence[int],
    count: int,
    x: Tensor,
    batched: bool,
    counts: str = "num_layers * num_directions",
) -> Sequence[Tensor]:
    """The states given by the caller, one tensor [count, B, size] (without a batch: [count, size]) for each name;
    `counts` says what the first axis counts.
    """
    given: Sequence[Any] = (state,) if isinstance(state, Tensor) else state
    if not isinstance(given, tuple | list) or len(given) != len(names):
        got = len(given) if isinstance(given, tuple | list) else type(given).__name__
        expected = f"({', '.join(names)})" if len(names) > 1 else names[0] if names else "no state"
        raise ShapeError(f"the cell has {len(names)} states, got {got}; pass state={expected}")
    batch, dtype, device = x.shape[1], x.dtype, x.device
    fits = True
    for name, tensor, size in zip(names, given, sizes, strict=True):
        want = (count, batch, size) if batched else (count, size)
        if not (
            isinstance(tensor, Tensor)
            and tensor.shape == want
            and tensor.device == device
            and tensor.layout == torch.strided
        ):
            raise _unfit(name, tensor, want, device, counts)
        if tensor.dtype != dtype:
            fits = False
            if not casting(x.device.type):
                raise ShapeError(f"the state {name} is {tensor.dtype}, but the input is {dtype}; use .to({dtype})")
    if not fits:  # under autocast
        given = [tensor.to(dtype) for tensor in given]
    return given if batched else [tensor.unsqueeze(1) for tensor in given]


def _unfit(name: str, tensor: Any, want: tuple[int, ...], device: torch.device, counts: str) -> ShapeError:
    """What is wrong with a state."""
    if not isinstance(tensor, Tensor):
        return ShapeError(f"the state {name} is {type(tensor).__name__}; pass a tensor {list(want)}")
    if tensor.shape != want:
        axes = f"[{counts},{' B,' if len(want) == 3 else ''} size]"
        return ShapeError(f"the state {name} has shape {list(tensor.shape)}; it must be {list(want)}: {axes}")
    if tensor.layout != torch.strided:
        return ShapeError(f"the state {name} is a tensor of layout {tensor.layout}; pass a dense one, to_dense()")
    return ShapeError(f"the state {name} is on {tensor.device}, but the input is on {device}; move it")


def check_kept(kept: Sequence[Sequence[Tensor]], x: Tensor) -> Sequence[Sequence[Tensor]]:
    """The states that a stateful layer kept, which fit the input x [T, B, D]."""
    state = next((state for place in kept for state in place), None)
    if state is None:
        return kept
    if state.shape[1] != x.shape[1]:
        raise ShapeError(
            f"the layer keeps the states of {state.shape[1]} sequences (stateful=True), but the input has "
            f"{x.shape[1]}; call reset_state() before other sequences, or pass a state"
        )
    if state.dtype != x.dtype or state.device != x.device:
        raise ShapeError(
            f"the states kept are {state.dtype} on {state.device}, but the input is {x.dtype} on {x.device}; move the "
            "layer with .to(...), which moves them, or call reset_state()"
        )
    if not torch.compiler.is_compiling() and state.is_inference() and not torch.is_inference_mode_enabled():
        return [[state.clone() for state in place] for place in kept]  # autograd takes none made in inference mode
    return kept


def why_whole(layer: Any) -> str | None:
    """Why a layer needs sequences whole, None if its output depends on what it has read so far."""
    if getattr(layer, "bidirectional", False):
        return (
            "runs forwards, but the layer is bidirectional and its reverse direction begins at the end; use "
            "bidirectional=False, or call the layer on the whole sequence"
        )
    if any(getattr(layer, "lookahead", ())):
        return (
            f"sees no later input, but the layer has lookahead={max(layer.lookahead)}; use lookahead=0, or call "
            "the layer on the whole sequence"
        )
    return _why_counted(layer)


def _why_counted(layer: Any) -> str | None:
    """Why no piece of a sequence stands alone, if a cell of the layer counts the steps from where a call begins."""
    if any(program.statistics for module in layer.modules() for program in getattr(module, "programs", ())):
        return (
            "runs piece by piece, but the statistics of batch_norm count from the first step of a call: each "
            "piece would be normalised as the beginning; run the sequence whole, or take layer_norm"
        )
    return None


def check_causal(layer: Any, what: str) -> None:
    """A layer's output depends on what it has read so far, so that it can run piece by piece."""
    why = why_whole(layer)
    if why is not None:
        raise ShapeError(f"{what} {why}")


def check_statistics(layer: Any, what: str) -> None:
    """No cell of the layer counts the steps from where a call begins."""
    why = _why_counted(layer)
    if why is not None:
        raise ShapeError(f"{what} {why}")


def check_buffers(buffers: Sequence[Tensor]) -> None:
    """Running statistics can be updated in place where a transform of torch.func runs."""
    if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
        return
    if not all(is_functorch_wrapped_tensor(buffer) for buffer in buffers):
        raise ShapeError(
            "batch_norm updates its running statistics in training, but vmap, or another transform of torch.func, "
            "shares them between its inputs; call layer.eval() first, or give each input buffers of its own "
            "(torch.func.stack_module_state and functional_call)"
        )


def check_generator(generator: Any) -> None:
    """A torch.Generator, or None."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ShapeError(
            f"generator is {type(generator).__name__}; give a torch.Generator, as torch.Generator().manual_seed(0)"
        )
