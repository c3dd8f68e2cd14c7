"""Compiled kernels: arrays in, arrays out. No classes to hold state, no input and output, no validation."""

from hotloop.kernels import jit as jit  # first: it says clearly where nothing can be compiled
