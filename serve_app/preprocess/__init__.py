"""Text and reference audio in, arrays out. Runs on CPU replicas."""
