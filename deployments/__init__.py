"""What joins cluster and components into a running Ray Serve application."""
