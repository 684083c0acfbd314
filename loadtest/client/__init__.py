"""Clients of video servers: one request from the instant it is due to its end, in the words of six APIs."""
