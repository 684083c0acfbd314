"""The Runware dialect."""
