"""What of a training goes into a checkpoint, and back."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from .checkpoint import Checkpoint
from .stepper import Stepper

__all__ = ["restore", "snapshot"]


def snapshot(stepper: Stepper, fabric: Fabric) -> tuple[dict[str, Tensor], list[Any]] | None:
    """The tensors of a checkpoint, and the shape of what each part carries; None in processes that do not write.

        model.NAME              the weights that are evaluated
        raw.NAME                those of the training, where a mean is evaluated
        average.count           of how many steps the mean is
        optimizer.NAME.KEY      the optimiser's moments
        carried.PART.NUMBER     what a part of the batch carries over, such as its state
        random.RANK.DEVICE      the generators

    Every process has to call it.
    """
    shapes: list[Any] = []
    own: dict[str, Tensor] = {f"random.{fabric.global_rank}.cpu": torch.get_rng_state()}
    if fabric.device.type == "cuda":
        own[f"random.{fabric.global_rank}.cuda"] = torch.cuda.get_rng_state(fabric.device)
    for share, carried in zip(stepper.shares, stepper.carried, strict=True):
        tensors: list[Tensor] = []
        shapes.append(_flatten(carried, tensors))
        own |= {f"carried.{share.index}.{i}": tensor.detach().cpu() for i, tensor in enumerate(tensors)}
    if fabric.world_size > 1:
        gathered: list[Any] = [None] * fabric.world_size
        torch.distributed.all_gather_object(gathered, (own, shapes))
        shapes = [shape for _, theirs in gathered for shape in theirs]
        own = {name: tensor for theirs, _ in gathered for name, tensor in theirs.items()}
    if not fabric.is_global_zero:
        return None
    tensors_by_name = {f"model.{name}": value for name, value in stepper.best_model.state_dict().items()}
    if stepper.best_model is not stepper.plain:
        assert stepper.average is not None
        tensors_by_name |= {f"raw.{name}": value for name, value in stepper.plain.state_dict().items()}
        tensors_by_name["average.count"] = stepper.average.n_averaged
    for name, parameter in stepper.plain.named_parameters():
        for key, value in stepper.optimizer.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):  # SGD without momentum says that it has none
                tensors_by_name[f"optimizer.{name}.{key}"] = value
    return tensors_by_name | own, shapes


def restore(stepper: Stepper, fabric: Fabric, checkpoint: Checkpoint) -> None:
    """Take all of `snapshot` back; the model holds the checkpoint's weights already."""
    device = fabric.device
    raw = checkpoint.part("raw")
    if raw:
        assert stepper.average is not None
        stepper.average.module.load_state_dict(checkpoint.part("model"))
        stepper.average.n_averaged.copy_(checkpoint.tensors["average.count"])
        stepper.plain.load_state_dict(raw)
        stepper.averaging = True
    optimizer = stepper.optimizer.optimizer
    for name, parameter in stepper.plain.named_parameters():
        for key, value in checkpoint.part(f"optimizer.{name}").items():
            counter = key == "step" and not optimizer.param_groups[0]["fused"]  # which stays on the CPU
            optimizer.state[parameter][key] = value if counter else value.to(parameter.device)
    for k, share in enumerate(stepper.shares):
        parts = checkpoint.part(f"carried.{share.index}")
        tensors = [parts[str(i)].to(device) for i in range(len(parts))]
        stepper.carried[k] = _build(checkpoint.document["carried"][share.index], tensors)
    random = checkpoint.part(f"random.{fabric.global_rank}")
    torch.set_rng_state(random["cpu"])
    if device.type == "cuda" and "cuda" in random:
        torch.cuda.set_rng_state(random["cuda"], device)


def _flatten(value: Any, tensors: list[Tensor]) -> Any:
    """A nest of tuples as JSON: the numbers of the tensors, which are put on the list, and null for None."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        tensors.append(value)
        return len(tensors) - 1
    return [_flatten(part, tensors) for part in value]


def _build(shape: Any, tensors: list[Tensor]) -> Any:
    if shape is None:
        return None
    return tensors[shape] if isinstance(shape, int) else tuple(_build(part, tensors) for part in shape)
