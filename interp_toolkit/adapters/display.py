"""What a notebook shows of an adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp_toolkit.adapters.adapter import Adapter


def display_rows(adapter: Adapter) -> dict[str, str]:
    """The facts of an adapter that are shown, by name."""
    config, contract = adapter.config, adapter.contract
    rows = dict(kind=config.kind, d_model=f"{config.d_model:,}", parameters=f"{adapter.parameter_count:,}")
    rows |= {name: str(x) for name in ("rank", "sites", "tokens") if (x := getattr(config, name)) not in (None, 1)}
    rows |= {name: str(value) for name, value in config.settings.items()}
    if contract is None:
        rows["contract"] = "none: not trained yet"
    else:
        rows |= dict(model=contract.model_id or "not known", site=str(contract.site or "not known"))
        if contract.threshold:
            rows["evidence threshold"] = f"{contract.threshold.value:.2f} nats per token"
    return rows
