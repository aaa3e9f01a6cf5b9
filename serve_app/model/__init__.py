"""CosyVoice2's networks, inference only. Imports torch and itself, nothing else of ours."""
