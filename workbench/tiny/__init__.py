"""The embedded model: a small genuine `GptOssForCausalLM`, its grammar, training, evaluation and weights."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""Folder with the shipped weights, tokenizer and chat template, in Hugging Face format."""
