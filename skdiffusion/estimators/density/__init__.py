"""Densities that diffusion models learn."""
