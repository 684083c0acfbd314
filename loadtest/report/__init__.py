"""Pages about a run: one HTML file with its figures inside, one of Markdown."""
