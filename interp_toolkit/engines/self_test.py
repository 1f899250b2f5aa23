"""The test that an engine runs an adapter's own model, before its numbers are used."""

from __future__ import annotations

import weakref
from typing import Any

import torch

from interp_toolkit.adapters import Adapter
from interp_toolkit.engines.engine import Engine
from interp_toolkit.engines.local import LocalEngine
from interp_toolkit.errors import ContractError, InterpToolkitError
from interp_toolkit.runtime.probe import probe_difference

# Mean absolute differences, in nats per token, that rounding explains: of float32 on both sides, and of any other dtype
# on one of them.
LIMITS = {"float32": 1e-3, "other": 0.15}
# By engine the adapters whose probes it passed, and the models that these are for.
_passed: weakref.WeakKeyDictionary[Any, set[Any]] = weakref.WeakKeyDictionary()


def require_same_model(engine: Engine, adapter: Adapter) -> None:
    """Refuse an engine that does not give what the adapter's own model gave for its probe; tested once per adapter.

    A hooked model's weights are looked at themselves (see `Contract.check_model`), and so are those of an engine whose
    facts have a fingerprint; a probe is then tested where there is one. Other engines are known by their numbers alone,
    and once known to run a model take its other adapters without a probe, such as untrained ones.

    Args:
        engine: to test.
        adapter: with its contract.

    Raises:
        ContractError: other numbers than those of the probe.
        InterpToolkitError: an engine that is known by its numbers alone, and an adapter without a probe.
    """
    if isinstance(engine, LocalEngine):
        return
    try:
        passed = _passed.setdefault(engine, set())
    except TypeError:  # an engine of the user's that can be no key is tested each time
        passed = set()
    contract = adapter.require_contract()
    model = (contract.model_id, contract.fingerprint, contract.block_signs)
    if adapter.digest in passed:
        return
    probe = contract.probe
    if probe is None:
        # It passed the probe of another adapter of the same model.
        if engine.facts.fingerprint or model in passed:
            return
        raise InterpToolkitError(
            f"expected an adapter with a probe, by which {type(engine).__name__} is known to run the adapter's own "
            f"model, and the contract has none; with that model at hand set adapter.contract = dataclasses.replace("
            f"adapter.contract, probe=interp_toolkit.runtime.make_probe(model, adapter)) and save the adapter again"
        )
    soft_prompt = contract.require_soft_prompt()
    with torch.no_grad():
        difference = probe_difference(
            lambda soft_tokens, targets, rows: engine.score(soft_prompt, soft_tokens, targets, rows), adapter, probe
        )
    both = {probe.dtype, engine.identity.get("dtype", "unknown")}
    limit = LIMITS["float32" if both == {"float32"} else "other"]
    if not difference <= limit:  # not a number is refused, too
        raise ContractError(
            f"expected an engine that gives the log-probabilities of the adapter's own model, {contract.model_id}, to "
            f"within {limit:g} nats per token ({probe.dtype} here, {engine.identity.get('dtype', 'unknown dtype')} "
            f"there), and {type(engine).__name__} differs by {difference:.3g}: it runs another model, dtype, "
            f"quantization or tokenizer; start it with the adapter's own model"
        )
    passed |= {adapter.digest, model}
