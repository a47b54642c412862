"""What the gate and a release check of the repository itself; no process of the platform uses it."""
