"""The HTTP edge: one router per dialect over one canonical request."""
