"""What the system tells of itself, in one registry, and everything that is made from it.

`families` is the registry; rules, alerts with their runbooks, and dashboards name its families and are written as
files by `python -m cluster.monitoring helm/skyreels`.
"""
