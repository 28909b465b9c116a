"""Prices and rate limits of models, the same for every runner."""
