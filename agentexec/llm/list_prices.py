"""Prices of OpenAI's models by its public price list, for users who set no prices of their own.

These facts come from outside and go out of date without any change here. Each value was compared in two independent price
tables that name OpenAI's price page as their source (those of LiteLLM 1.110.2 and genai-prices 0.2.3); a model on which
they differ is left out.
"""

from __future__ import annotations

from datetime import date

CHECKED_ON = date(2026, 11, 25)

BASE_MODEL_PRICES = {
    "gpt-4o": (2.50, 1.25, 10.00),
    "gpt-4o-mini": (0.15, 0.075, 0.60),
    "gpt-4.1": (2.00, 0.50, 8.00),
    "gpt-4.1-mini": (0.40, 0.10, 1.60),
    "gpt-4.1-nano": (0.10, 0.025, 0.40),
    "o3": (2.00, 0.50, 8.00),
    "o3-mini": (1.10, 0.55, 4.40),
    "o4-mini": (1.10, 0.275, 4.40),
    "gpt-5": (1.25, 0.125, 10.00),
    "gpt-5-mini": (0.25, 0.025, 2.00),
    "gpt-5-nano": (0.05, 0.005, 0.40),
    "gpt-5.1": (1.25, 0.125, 10.00),
    "gpt-5.2": (1.75, 0.175, 14.00),
    "gpt-5.4": (2.50, 0.25, 15.00),
    "gpt-5.4-mini": (0.75, 0.075, 4.50),
    "gpt-5.4-nano": (0.20, 0.02, 1.25),
    "gpt-5.5": (5.00, 0.50, 30.00),
    "gpt-5.6": (4.00, 0.40, 20.00),
    "gpt-5.6-luna": (0.20, 0.02, 1.20),
    "gpt-5.6-terra": (2.00, 0.20, 12.00),
    "gpt-5.6-sol": (4.00, 0.40, 20.00),
    "gpt-6-luna": (0.10, 0.01, 0.50),
    "gpt-6-sol": (2.00, 0.20, 10.00),
    "gpt-6-astra": (10.00, 1.00, 50.00),
    "gpt-6.1-terra": (1.00, 0.05, 5.00),
    "gpt-6.1-sol": (2.00, 0.10, 10.00),
}
"""Dollars per million tokens: input, cached input, output."""

SNAPSHOTS = {
    "gpt-4o": ("2024-08-06", "2024-11-20"),  # the snapshot of 2024-05-13 cost more
    "gpt-4o-mini": ("2024-07-18",),
    "gpt-4.1": ("2025-04-14",),
    "gpt-4.1-mini": ("2025-04-14",),
    "gpt-4.1-nano": ("2025-04-14",),
    "o3": ("2025-04-16",),
    "o3-mini": ("2025-01-31",),
    "o4-mini": ("2025-04-16",),
    "gpt-5": ("2025-08-07",),
    "gpt-5-mini": ("2025-08-07",),
    "gpt-5-nano": ("2025-08-07",),
    "gpt-5.1": ("2025-11-13",),
    "gpt-5.2": ("2025-12-11",),
    "gpt-5.4": ("2026-03-05",),
    "gpt-5.4-mini": ("2026-03-17",),
    "gpt-5.4-nano": ("2026-03-17",),
    "gpt-5.5": ("2026-04-23",),
}
"""Dated names of these models with the same price. Another date may have another price, so it is not listed."""

PRICES = BASE_MODEL_PRICES | {
    f"{model}-{snapshot}": BASE_MODEL_PRICES[model]
    for model, snapshots in SNAPSHOTS.items()
    for snapshot in snapshots
}
"""Dollars per million tokens by model name, dated names included: input, cached input, output."""
