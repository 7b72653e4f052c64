"""Engine arguments, where vLLM has them."""
