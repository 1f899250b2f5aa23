"""The untrained direction, which trained adapters are compared with."""

from __future__ import annotations

from dataclasses import replace

from interp_toolkit.adapters.adapter import Adapter
from interp_toolkit.adapters.uncalibrated import uncalibrated
from interp_toolkit.contract import Contract


def untrained_adapter(adapter: Adapter | Contract, scale: float | None) -> Adapter:
    """Make an adapter that is the untrained direction, s x^, in another adapter's soft prompt.

    It reads one site, since several side by side are no direction of the model: the deepest of the adapter's sites.

    Args:
        adapter: with its contract, or that contract.
        scale: length s of the direction; None for vectors that are centred already and have the length wanted, which
            then become soft tokens as they are.

    Returns:
        An adapter of kind ``scale``, or ``identity`` without a scale, with the contract of that one site.

    Raises:
        InterpToolkitError: an adapter without a contract.
    """
    contract = adapter if isinstance(adapter, Contract) else adapter.require_contract()
    site = max(contract.site.sites) if contract.site else None
    if scale is None:
        untrained, mean = Adapter.create("identity", contract.d_model, normalize=False), None
    else:
        untrained = Adapter.create("scale", contract.d_model, init_scale=scale)
        mean = contract.mean if site == contract.site else None
    untrained.contract = replace(uncalibrated(contract), site=site, mean=mean, normalize=scale is not None)
    return untrained.requires_grad_(False).eval()
