"""Where a run computes: devices, precision, processes."""

from __future__ import annotations

import os

import torch
from lightning_fabric import Fabric

from ..errors import OptionError
from .config import Machine
from .devices import found_device

__all__ = ["make_fabric", "placed"]


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
        OptionError: a device that is not here, or too few of them, or a precision that it does not have.
    """
    accelerator = found_device(machine.device)
    if machine.precision == "16-mixed" and accelerator == "cpu":
        raise OptionError("precision 16-mixed needs a GPU; pass bf16-mixed for the CPU.")
    if accelerator == "cuda" and machine.devices > torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise OptionError(f"devices is {machine.devices}, and torch sees {there} GPUs; pass {there} or less.")
    several = machine.devices * machine.nodes > 1
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
