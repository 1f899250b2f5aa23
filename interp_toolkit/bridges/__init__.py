"""Bridge entities of multi-hop questions: looked for in the descriptions of a prompt's tokens."""

from interp_toolkit.adapters import untrained_adapter
from interp_toolkit.bridges.decoding import decode_rates, layer_position_table
from interp_toolkit.bridges.entities import extract_entities
from interp_toolkit.bridges.grid import Grid, describe_grid
from interp_toolkit.bridges.names import Entity, find_names
from interp_toolkit.bridges.naming import BridgeEntities, find_bridge_entities, name_bridges
from interp_toolkit.bridges.twohop import TwoHop, answers_hops, read_aliases, read_twohop

__all__ = [
    "BridgeEntities",
    "Entity",
    "Grid",
    "TwoHop",
    "answers_hops",
    "decode_rates",
    "describe_grid",
    "extract_entities",
    "find_bridge_entities",
    "find_names",
    "layer_position_table",
    "name_bridges",
    "read_aliases",
    "read_twohop",
    "untrained_adapter",
]
