"""Checks of the repository itself, for the gate and a release; no process of the platform uses them."""
