"""Measuring on a GPU: device events, peers on the device, kernels compiled ahead. Needs torch and triton alone."""

from __future__ import annotations
