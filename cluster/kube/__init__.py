"""The installation on Kubernetes."""
