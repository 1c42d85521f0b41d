"""What a recurrent layer carries from one piece of a sequence to the next."""

from __future__ import annotations

from ..nn.state import State, detach_state

__all__ = ["State", "detach_state"]
