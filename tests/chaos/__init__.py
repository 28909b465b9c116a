"""Whole deployments under random faults, drawn from a seed: `./dev chaos`."""
