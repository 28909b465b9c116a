"""Facts about models that are the same for every runner: prices and rate limits."""
