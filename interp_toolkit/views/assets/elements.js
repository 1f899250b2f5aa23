"use strict";
// What the report and the explorer draw with. Text from data only ever becomes the text of an element, never HTML.
const elements = (() => {
  const LONG = 280, TOKEN = 60;

  function make(tag, props, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(props || {})) {
      if (name in node) node[name] = value; else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }

  // A cut never falls within a pair of surrogates.
  const start = (text, length) => text.slice(0, length).replace(/[\ud800-\udbff]$/, "");
  const many = (count) => count.toLocaleString("en");

  function prose(text) {
    const span = make("span", {className: "text", dir: "auto"});
    // A name such as blocks.23.hook_resid_post breaks between its parts.
    const parts = start(text, LONG).split(/(?<=\w[._\/](?=\w))/);
    span.append(...parts.flatMap((part, i) => i ? [make("wbr"), part] : [part]));
    if (text.length <= LONG) return span;
    span.append("…");
    const more = make("button", {type: "button", className: "more", textContent: `show all ${many(text.length)} characters`});
    more.onclick = () => { span.textContent = text; more.remove(); };
    return make("span", {}, span, more);
  }

  function figure(value, digits) {
    if (value === null || value === undefined) return "";
    if (typeof value !== "number") return String(value);
    const text = Number.isInteger(value) && digits == null ? String(value)
      : digits != null ? value.toFixed(digits)
      : value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 1e6) ? value.toPrecision(3)
      : String(Math.round(value * 1000) / 1000);
    return text.replace(/^-(0(\.0*)?)$/, "$1").replace("-", "\u2212");
  }

  function choose(label, names, act) {
    const select = make("select", {}, ...names.map((name, i) => make("option", {value: i, textContent: start(name, 80)})));
    select.onchange = () => act(Number(select.value));
    return make("label", {}, label, select);
  }

  const largest = (values) => values.reduce((most, x) => typeof x === "number" ? Math.max(most, Math.abs(x)) : most, 0) || 1;

  function tint(node, value, most) {
    if (typeof value !== "number") return;
    node.style.setProperty("--v", Math.min(1, Math.abs(value) / most).toFixed(3));
    node.style.setProperty("--tint", value < 0 ? "var(--cold)" : "var(--hot)");
  }

  function tokenNode(tag, text, value, most) {
    const shown = text.replaceAll("\n", "↵").replaceAll("\t", "⇥");
    const cut = shown.length > TOKEN ? `${start(shown, TOKEN)}… (${many(shown.length)} characters)` : shown;
    const node = make(tag, {className: "token"}, make("bdi", {textContent: cut || "∅"}));
    if (tag === "button" && cut && !cut.trim()) node.setAttribute("aria-label", "space");
    tint(node, value, most);
    return node;
  }

  function legend(most, negative) {
    const line = make("i", {"aria-hidden": "true"});
    line.style.setProperty("--from", negative ? "color-mix(in srgb, var(--cold) 62%, transparent)" : "transparent");
    line.style.setProperty("--to", "color-mix(in srgb, var(--hot) 62%, transparent)");
    if (negative) line.style.background = "linear-gradient(to right, var(--from), transparent, var(--to))";
    return make("span", {className: "legend"}, negative ? figure(-most, 2) : "0", line, figure(most, 2));
  }

  // An SAE's feature: its label, descriptions and top activating examples.
  function featureCard(card) {
    const scores = (list) => make("ul", {className: "scores"}, ...list.map(([key, value]) => make("li", {}, `${key} `, make("strong", {}, prose(figure(value))))));
    function context(one) {
      const most = largest(one.values);
      const nodes = one.tokens.map((token, i) => {
        const node = tokenNode("span", token, one.values[i], most);
        if (one.values[i]) node.title = figure(one.values[i], 2);
        return node;
      });
      return make("li", {}, ...nodes, make("small", {className: "note", textContent: ` highest ${figure(most, 2)}`}));
    }
    const said = card.descriptions.map((x) => make("li", {}, prose(x.text),
      ...(x.evidence === null ? [] : [make("span", {className: "number", textContent: `evidence ${figure(x.evidence, 2)}`})]), scores(x.scores)));
    const parts = [make("h3", {}, make("small", {textContent: `feature ${card.feature}`}), card.label === null ? make("em", {textContent: "no label"}) : prose(card.label)), scores(card.scores)];
    if (said.length) parts.push(make("div", {className: "note", textContent: "The model's own words"}), make("ul", {className: "said"}, ...said));
    if (card.contexts.length) {
      const some = make("ul", {className: "contexts"}, ...card.contexts.slice(0, 3).map(context));
      parts.push(make("div", {className: "note", textContent: "Where it is active"}), some);
      if (card.contexts.length > 3) {
        const more = make("button", {type: "button", className: "more", textContent: `${card.contexts.length - 3} more`});
        more.onclick = () => { some.append(...card.contexts.slice(3).map(context)); more.remove(); };
        parts.push(more);
      }
    }
    return make("article", {className: "card"}, ...parts);
  }

  return {make, start, many, prose, figure, choose, largest, tint, tokenNode, legend, featureCard};
})();
