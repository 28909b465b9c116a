"""Prices of models by `genai-prices`, where it is installed (the extra `prices`)."""

from __future__ import annotations

import functools
import importlib
import logging
from typing import Any

log = logging.getLogger("agentexec.prices")

SAMPLE = 1000
"""Tokens whose price is asked for: that of a small request, where a provider has several."""

MAX_MODELS = 500
"""Models whose prices are remembered. Anybody may have written names into the record."""


@functools.lru_cache(maxsize=MAX_MODELS)
def find_price(model: str) -> tuple[float, float, float] | None:
    """Return dollars per million tokens of input, cached input and output; None if they are not known.

    A name may begin with its provider, like "anthropic/claude-sonnet-4-5".
    """
    try:
        listed: Any = importlib.import_module("genai_prices")  # on use: optional, and its import takes long
    except ImportError:
        return None
    provider, slash, name = model.rpartition("/")

    def dollars_per_million(**tokens: int) -> float:
        usage = listed.Usage(**tokens)
        if slash:
            price = listed.calc_price(usage, name, provider_id=provider.rpartition("/")[2])
        else:
            price = listed.calc_price(usage, model)
        return float(price.total_price) * 1_000_000 / SAMPLE

    try:
        return (
            dollars_per_million(input_tokens=SAMPLE),
            dollars_per_million(input_tokens=SAMPLE, cache_read_tokens=SAMPLE),
            dollars_per_million(output_tokens=SAMPLE),
        )
    except LookupError:
        return None
    except Exception as error:
        log.warning(
            "genai-prices cannot tell a price (%s); set AGENTEXEC_MODEL_PRICES.", type(error).__name__
        )
        return None
