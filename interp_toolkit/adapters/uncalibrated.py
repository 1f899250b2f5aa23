"""A contract for an adapter, or a soft prompt, that its numbers were not measured with."""

from __future__ import annotations

from dataclasses import replace

from interp_toolkit.contract import Contract


def uncalibrated(contract: Contract) -> Contract:
    """The same model, places and means, without what was measured of one adapter behind one soft prompt.

    Args:
        contract: whose thresholds, confidence and probe are left out.
    """
    more = tuple(replace(place, threshold=None) for place in contract.more)
    return replace(contract, threshold=None, more=more, confidence=(), probe=None)
