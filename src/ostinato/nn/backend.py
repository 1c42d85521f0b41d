"""Whether the backend that a layer asks for can run it, before there is a call."""

from __future__ import annotations

from torch import Tensor

from ..runtime import asked, choose, products_of
from .rnn import RNN

__all__ = ["check_backend"]


def check_backend(layer: RNN, like: Tensor) -> None:
    """Refuse a layer whose backend cannot train it; one that asks for "auto" takes what there is.

    Args:
        layer: nothing is run of it; what is compiled is kept for its calls.
        like: any tensor with the dtype and the device of its x, under the autocast of its calls.

    Raises:
        BackendError: the backend that is asked for cannot run this.
        UnsafeCacheError: the kernel cache is not safe to load code from.
    """
    if asked(layer.backend) == "auto":
        return
    kind = products_of(like, layer.backend)
    for place in layer._stack.places:  # pyright: ignore[reportPrivateUsage]
        choose(place.step, layer.backend, like.device, kind)
