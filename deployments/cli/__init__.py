"""The `skyreels` command: one module per group of commands."""
