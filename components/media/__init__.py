"""Reading images and writing video, without torch."""
