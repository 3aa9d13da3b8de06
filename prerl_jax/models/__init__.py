"""The decoder and its critic, the tokenizer, and checkpoints in Hugging Face's format and GGUF."""
