"""The adapters of a server, by the names that clients use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp_toolkit.adapters import Adapter
from interp_toolkit.chat import uses_chat
from interp_toolkit.engines import LocalEngine
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.serve.problems import NotFound
from interp_toolkit.sites import Place


class ServedAdapters:
    """Adapters of one model, the default one first.

    Args:
        engine: of the model.
        adapters: by name.

    Attributes:
        model: facts of the model.

    Raises:
        InterpToolkitError: no adapter, or one for another model.
    """

    def __init__(self, engine: LocalEngine, adapters: Mapping[str, Adapter]) -> None:
        if not adapters:
            raise InterpToolkitError("expected at least one adapter to serve, got none; name some with --adapter")
        self._engine, self._adapters = engine, dict(adapters)
        # Known once: it takes a look through the model's weights, for which a pass that runs is waited for.
        self.model = engine.facts
        self._d_model = self.model.d_model
        for adapter in self._adapters.values():
            adapter.require_contract(self.model).require_soft_prompt()
            adapter.to(engine.device)
        self._facts = self._list_facts()
        self._digests = {row["id"]: row["digest"] for row in self._facts}

    def facts(self) -> list[dict[str, Any]]:
        """What clients may know of each."""
        return self._facts

    def digest(self, name: str) -> str:
        """`Adapter.digest` of one of them."""
        return self._digests[name]

    def _list_facts(self) -> list[dict[str, Any]]:
        rows = []
        for name, adapter in self._adapters.items():
            contract = adapter.require_contract()
            rows.append(
                dict(
                    id=name,
                    kind=adapter.config.kind,
                    parameters=adapter.parameter_count,
                    digest=adapter.digest,
                    site=str(contract.site) if contract.site else None,
                    sites=[str(place.site) for place in contract.reading_places],
                    chat=contract.chat,
                    has_way_back=contract.way_back is not None,
                )
            )
        return rows

    def choose(self, name: str | None, sites: Any = None, width: int | None = None) -> tuple[str, Adapter]:
        """The adapter of a name, or the first that reads these sites and takes vectors of this width.

        Args:
            name: None for the first that fits; where none does, it is the default, which refuses them.
            sites: one place, several, or None for any.
            width: of vectors; None for any.

        Raises:
            NotFound: no adapter has that name.
        """
        if name is not None:
            if name not in self._adapters:
                raise NotFound(f"expected one of the adapters {', '.join(self._adapters)}, got {name[:80]!r}")
            return name, self._adapters[name]
        wanted: list[Place] = [] if sites is None else sites if isinstance(sites, list) else [sites]
        for known, adapter in self._adapters.items():
            contract = adapter.require_contract()
            widths = {self._d_model * len(place.site.sites) for place in contract.reading_places}
            takes = width is None or width in widths | {adapter.config.width}
            if takes and all(contract.reading_place(place) for place in wanted):
                return known, adapter
        return next(iter(self._adapters.items()))

    def chat(self, chat: bool | None, adapter: Adapter | None = None) -> bool:
        """Whether texts are user turns: as a request says, else as in the adapter's training.

        Args:
            chat: of the request.
            adapter: that describes them, where one does.
        """
        if chat is None and adapter is not None:
            chat = adapter.require_contract().chat
        return uses_chat(self._engine.tokenizer, chat)
