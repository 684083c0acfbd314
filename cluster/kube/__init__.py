"""The installation on Kubernetes: the only place that speaks to its API, through the official client."""
