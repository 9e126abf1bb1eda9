"""Samplers of densities."""
