"""The catalogue in print: what there is to say of each cell, the picture of its step, the page of them all."""
