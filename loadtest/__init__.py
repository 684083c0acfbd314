"""The load generator: speaks to a running system over HTTP only."""
