"""The Helm chart's values: their model, and what an installation's `Config` makes of them."""
