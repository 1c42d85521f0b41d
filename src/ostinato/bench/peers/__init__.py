"""Who is measured: our layer, and the peers it is held against, all holding the same weights.

Weights and gradients go by the names in the cell's equations, whatever a contestant calls them inside.
"""

from __future__ import annotations
