"""Many small jobs while processes are killed and frozen, and a verdict: nothing lost, nothing twice, nothing untrue."""
