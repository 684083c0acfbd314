"""Pure scheduling decisions: state in, actions out, the clock as data."""
