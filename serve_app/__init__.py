"""CosyVoice2 text-to-speech as a streaming Ray Serve application."""
