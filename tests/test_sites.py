import pytest

from interp_toolkit import InterpToolkitError, Site


@pytest.mark.parametrize(
    ("text", "layer", "printed"),
    [
        ("blocks.24.hook_resid_post", 24, "blocks.24.hook_resid_post"),
        ("blocks.0.hook_resid_pre", 0, "blocks.0.hook_resid_pre"),
        ("blocks.3.hook_resid_mid", 3, "blocks.3.hook_resid_mid"),
        ("blocks.7.hook_out", 7, "blocks.7.hook_resid_post"),
        ("blocks.7.hook_in", 7, "blocks.7.hook_resid_pre"),
        ("blocks.3.hook_attn_out", 3, "blocks.3.hook_attn_out"),
        ("blocks.3.hook_mlp_out", 3, "blocks.3.hook_mlp_out"),
        ("blocks.3.ln1.hook_normalized", 3, "blocks.3.ln1.hook_normalized"),
        ("hook_embed", -1, "hook_embed"),
        (5, 5, "blocks.5.hook_resid_post"),
    ],
)
def test_a_site_is_parsed_and_printed(text, layer, printed):
    site = Site.parse(text)
    assert (site.layer, str(site)) == (layer, printed)
    assert Site.parse(str(site)) == site


def test_sites_are_ordered_by_depth():
    names = ["hook_embed", "blocks.0.hook_resid_pre", "blocks.0.hook_attn_out", "blocks.0.hook_resid_mid"]
    names += ["blocks.0.hook_mlp_out", "blocks.0.ln2.hook_normalized", "blocks.0.hook_resid_post"]
    names += ["blocks.2.hook_resid_pre", "blocks.10.hook_resid_pre"]
    assert [str(site) for site in sorted(map(Site.parse, reversed(names)))] == names


@pytest.mark.parametrize(
    "text",
    [
        "blocks.x.hook_resid_post",
        "blocks.3.mlp",
        "blocks.3.hook_resid_pst",
        "blocks.3.hook_z",
        "",
        -1,
        True,
        "blocks.3.hook_resid_post ",
    ],
)
def test_what_is_no_site_is_refused(text):
    with pytest.raises(InterpToolkitError, match=r"expected a site such as 'blocks\.12\.hook_resid_post'.*got"):
        Site.parse(text)


def test_a_layer_that_a_model_lacks_is_refused():
    with pytest.raises(InterpToolkitError, match=r"blocks\.30\.hook_resid_post does not exist.*30 layers.*0 to 29"):
        Site.after(30).require_in(30)
