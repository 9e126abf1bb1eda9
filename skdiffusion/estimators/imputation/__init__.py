"""Imputers and what is built on them."""
