"""What the system knows and decides: records, plans, job store and policies. No tensors, no Ray."""
