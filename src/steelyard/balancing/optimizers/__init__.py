"""What optimizers do that a balancer or a ledger is tied to: wrappers, hooks, steps, checkpoints."""
