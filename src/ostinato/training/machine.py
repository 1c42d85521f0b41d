"""Where a run computes: devices, precision, processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from torch import nn

from ..errors import OptionError, OstinatoError, RunError
from ..nn import RNN
from ..nn.backend import check_backend
from .config import Machine
from .devices import found_device

__all__ = ["agreed", "check_layers", "joined", "make_fabric", "placed"]


def placed(machine: Machine) -> Machine:
    """The machine as torchrun has set it up, where it has: the numbers of processes are then its own.

    Raises:
        OptionError: a number of devices that was asked for and is not torchrun's.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return machine
    local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if machine.devices not in (1, local):
        raise OptionError(
            f"devices is {machine.devices}, and torchrun started {local} processes here; leave --devices out."
        )
    nodes = max(1, world // local)
    return Machine(**{**vars(machine), "devices": local, "nodes": nodes})


def make_fabric(machine: Machine) -> Fabric:
    """Fabric for a machine, its processes launched.

    With several devices the command is run again for each of them: what stands before this call happens in all.

    Raises:
        OptionError: a device that is not here, or too few of them, a precision that it does not have, or several
            machines that nothing tells apart.
    """
    accelerator = found_device(machine.device)
    if machine.precision == "16-mixed" and accelerator == "cpu":
        raise OptionError("precision 16-mixed needs a GPU; pass bf16-mixed for the CPU.")
    if accelerator == "cuda" and machine.devices > torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise OptionError(f"devices is {machine.devices}, and torch sees {there} GPUs; pass {there} or less.")
    several = machine.devices * machine.nodes > 1
    if machine.nodes > 1 and not {"MASTER_ADDR", "SLURM_NTASKS"} & os.environ.keys():
        raise OptionError(
            f"nodes is {machine.nodes}, and nothing says which of them this is; start the command with torchrun on "
            "each, or set MASTER_ADDR, MASTER_PORT and NODE_RANK."
        )
    fabric = Fabric(
        accelerator=accelerator,
        devices=machine.devices,
        num_nodes=machine.nodes,
        strategy="ddp" if several else "auto",
        precision=machine.precision,  # pyright: ignore[reportArgumentType]
    )
    if several:
        fabric.launch()
    return fabric


def check_layers(model: nn.Module, fabric: Fabric) -> None:
    """Refuse a model whose layers' backend cannot train them here, before anything is written.

    Raises:
        BackendError: the backend that is asked for cannot run this; "auto" finds one that can.
    """
    with fabric.autocast():  # which sets the dtype of new tensors too, where a precision is not of 32 bits
        like = torch.empty(0, device=fabric.device)
        for layer in model.modules():
            if isinstance(layer, RNN):
                check_backend(layer, like)


@contextmanager
def agreed(fabric: Fabric) -> Iterator[None]:
    """In its `with` statement an error in one process is one in all of them: none goes on alone and waits.

    Raises:
        OstinatoError: this process's own.
        RunError: that of another process.
    """
    own: OstinatoError | None = None
    try:
        yield
    except OstinatoError as error:
        own = error
    told: list[str | None] = [None] * fabric.world_size
    if fabric.world_size > 1:
        torch.distributed.all_gather_object(told, None if own is None else str(own))
    if own is not None:
        raise own
    for rank, message in enumerate(told):
        if message is not None:
            raise RunError(f"process {rank}: {message}")


@contextmanager
def joined(fabric: Fabric) -> Iterator[None]:
    """In its `with` statement the loss of another process is an error with a remedy.

    Raises:
        RunError: another process ended.
    """
    try:
        yield
    except RuntimeError as error:
        # gloo raises no class of its own
        if fabric.world_size == 1 or not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise
        raise RunError(
            f"process {fabric.global_rank} of {fabric.world_size} lost another one, which was killed or failed; what "
            "the last checkpoint holds stands: go on with --resume."
        ) from None
