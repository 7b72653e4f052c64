"""Modules where vLLM has them."""
