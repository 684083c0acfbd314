"""The WaveSpeed dialect."""
