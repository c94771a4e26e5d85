"""Checkpoints, published and ours: reading, writing, and the names that others give to the same tensors."""

from omnivox.checkpoint.load import Loaded, convert, load_checkpoint, save_pretrained
from omnivox.checkpoint.prompt import Prompt

__all__ = ["Loaded", "Prompt", "convert", "load_checkpoint", "save_pretrained"]
