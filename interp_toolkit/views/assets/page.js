"use strict";
// Draws what the page holds as data.
(() => {
  const {make, start, many, prose, figure, choose, largest, tint, tokenNode, legend, featureCard} = elements;
  const PAGE = 50, CARDS = 10, SHORT = 22;

  function search(label, act) {
    const input = make("input", {type: "search", autocomplete: "off", spellcheck: false});
    input.oninput = () => act(input.value.toLowerCase().split(/\s+/).filter(Boolean));
    return make("label", {}, label, input);
  }

  function pager(name, act) {
    const before = make("button", {type: "button", textContent: "Previous"});
    const after = make("button", {type: "button", textContent: "Next"});
    const where = make("span", {});
    const nav = make("nav", {className: "controls", "aria-label": `Pages of ${name}`}, before, where, after);
    before.onclick = () => act(-1);
    after.onclick = () => act(1);
    return {nav, show(page, pages) {
      nav.hidden = pages < 2;
      nav.style.display = pages < 2 ? "none" : "";
      where.textContent = `Page ${page + 1} of ${pages}`;
      before.disabled = page === 0;
      after.disabled = page === pages - 1;
    }};
  }

  // Filter, pages and count, shared by tables and features. `texts` are what is searched, lower case.
  function paged(box, {name, unit, texts, size, draw, controls}) {
    const state = {words: [], page: 0, order: texts.map((_, i) => i)};
    const count = make("output", {});
    const pages = pager(name, (step) => { state.page += step; show(); });
    const bar = make("div", {className: "controls"});
    if (texts.length > 5) bar.append(search("Filter", (words) => { state.words = words; state.page = 0; show(); }));
    bar.append(...controls, count);
    const body = make("div", {});
    box.append(bar, body, pages.nav);
    function show() {
      const kept = state.order.filter((i) => state.words.every((word) => texts[i].includes(word)));
      const total = Math.max(1, Math.ceil(kept.length / size));
      state.page = Math.min(Math.max(state.page, 0), total - 1);
      count.textContent = kept.length === texts.length ? `${many(kept.length)} ${unit}` : `${many(kept.length)} of ${many(texts.length)} ${unit}`;
      pages.show(state.page, total);
      draw(body, kept.slice(state.page * size, (state.page + 1) * size));
    }
    return {show, sort(order) { state.order = order; state.page = 0; show(); }};
  }

  function sorted(values, down) {
    const order = values.map((_, i) => i);
    const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
      : String(a).localeCompare(String(b), "en", {numeric: true});
    return order.sort((i, j) => {
      const a = values[i], b = values[j];
      if (a === null || b === null) return (a === null) - (b === null) || i - j;
      return (down ? -1 : 1) * compare(a, b) || i - j;
    });
  }

  function table(box, data, name) {
    const {columns, rows} = data;
    if (!rows.length) { box.append(make("p", {className: "note", textContent: "No rows."})); return; }
    const texts = rows.map((row) => row.map((x, i) => figure(x, columns[i].digits)).join(" ").toLowerCase());
    const short = columns.map((_, i) => rows.every((row) => String(row[i] ?? "").length <= SHORT));
    const most = columns.map((column, i) => column.kind === "bar" ? largest(rows.map((row) => row[i])) : 1);
    const heads = [], head = make("tr", {});
    let by = -1, down = false;
    columns.forEach((column, i) => {
      const button = make("button", {type: "button", textContent: column.name});
      const cell = make("th", {scope: "col", className: column.kind === "text" ? "" : "number"}, button);
      button.onclick = () => {
        const first = column.kind !== "text";
        if (by !== i) { by = i; down = first; } else if (down === first) { down = !first; } else { by = -1; }
        heads.forEach((other, j) => j === by ? other.setAttribute("aria-sort", down ? "descending" : "ascending") : other.removeAttribute("aria-sort"));
        list.sort(by < 0 ? rows.map((_, k) => k) : sorted(rows.map((row) => row[by]), down));
      };
      heads.push(cell);
      head.append(cell);
    });
    const body = make("tbody", {});
    const whole = make("table", {className: "table", "aria-label": name}, make("thead", {}, head), body);
    function draw(place, chosen) {
      body.replaceChildren(...chosen.map((i) => make("tr", {}, ...rows[i].map((value, j) => {
        const column = columns[j], cell = make("td", {"data-name": column.name});
        if (column.kind === "text") { if (short[j]) cell.className = "short"; if (value !== null) cell.append(prose(String(value))); return cell; }
        cell.className = "number";
        const text = figure(value, column.digits);
        if (column.kind === "bar" && text) {
          const bar = make("div", {className: "bar", textContent: text});
          tint(bar, value, most[j]);
          cell.append(bar);
        } else cell.textContent = text;
        return cell;
      }))));
      if (!whole.isConnected) place.append(make("div", {className: "wide"}, whole));
    }
    const list = paged(box, {name, unit: rows.length === 1 ? "row" : "rows", texts, size: PAGE, draw, controls: []});
    if (data.same.length) {
      const line = data.same.map(([key, value]) => `${key}: ${figure(value)}`).join(" · ");
      box.append(make("div", {className: "same"}, "In every row: ", prose(line)));
    }
    list.show();
  }

  function tokens(box, data, name) {
    const values = data.texts.flatMap((text) => text.layers.flatMap((layer) => layer.tokens.map((token) => token.value)));
    const most = largest(values), noted = data.texts.some((text) => text.layers.some((x) => x.tokens.some((y) => y.notes.length)));
    const bar = make("div", {className: "controls"}), layers = make("span", {});
    const place = make("div", {className: "tokens" + (noted ? " glossed" : ""), role: "group", "aria-label": `${name}; arrow keys go from token to token`});
    const detail = make("div", {className: "detail", "aria-live": "polite"});
    let text = data.texts[0], layer = text.layers[0], at = 0, nodes = [];
    if (data.texts.length > 1) bar.append(choose("Text", data.texts.map((x) => x.name), (i) => { text = data.texts[i]; offer(); }));
    bar.append(layers);
    if (noted) {
      const box = make("input", {type: "checkbox", checked: true});
      box.onchange = () => place.classList.toggle("glossed", box.checked);
      bar.append(make("label", {}, box, "words under each token"));
    }
    bar.append(make("span", {className: "legend", textContent: data.value}), legend(most, values.some((x) => x < 0)));
    box.append(bar, place, detail);
    function offer() {
      const held = text.layers.findIndex((x) => x.name === layer.name);
      layer = text.layers[Math.max(held, 0)];
      layers.replaceChildren();
      if (text.layers.length > 1) {
        const label = choose("Layer", text.layers.map((x) => x.name), (i) => { layer = text.layers[i]; draw(); });
        label.querySelector("select").value = Math.max(held, 0);
        layers.append(label);
      }
      draw();
    }
    function tell(i) {
      const token = layer.tokens[i];
      nodes.forEach((node, j) => { node.tabIndex = j === i ? 0 : -1; node.setAttribute("aria-pressed", String(j === i)); });
      at = i;
      const head = make("div", {}, make("strong", {}, prose(token.text.replaceAll("\n", "↵") || "∅")), token.value === null ? "" : ` · ${data.value} ${figure(token.value, 2)}`);
      const notes = token.notes.map(([said, value]) => make("li", {}, prose(said || "(nothing)"), value === null ? "" : ` · ${figure(value, 2)}`));
      detail.replaceChildren(head, make("ul", {}, ...notes));
    }
    function draw() {
      nodes = layer.tokens.map((token, i) => {
        const node = tokenNode("button", token.text, token.value, most);
        node.type = "button";
        if (token.notes.length) node.append(make("span", {className: "gloss", dir: "auto", textContent: start(token.notes[0][0], 120)}));
        node.onmouseenter = node.onfocus = node.onclick = () => tell(i);
        return node;
      });
      place.replaceChildren(...nodes.flatMap((node, i) => layer.tokens[i].breaks ? [node, make("br")] : [node]));
      tell(Math.min(at, nodes.length - 1));
    }
    place.onkeydown = (event) => {
      const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1, Home: -at, End: nodes.length - 1 - at}[event.key];
      if (step === undefined) return;
      event.preventDefault();
      nodes[Math.min(Math.max(at + step, 0), nodes.length - 1)].focus();
    };
    offer();
  }

  function features(box, data, name) {
    const cards = data.features;
    const texts = cards.map((card) => [card.feature, card.label, ...card.scores.map(([key, value]) => `${key} ${figure(value)}`),
      ...card.descriptions.map((x) => x.text), ...card.contexts.map((x) => x.tokens.join(""))].join(" ").toLowerCase());
    const draw = (place, chosen) => place.replaceChildren(...chosen.map((i) => featureCard(cards[i])));
    const keys = [...new Set(cards.flatMap((card) => card.scores.filter(([, value]) => typeof value === "number").map(([key]) => key)))];
    const value = (card, key) => (card.scores.find(([other]) => other === key) || [null, null])[1];
    const evidence = cards.map((card) => card.descriptions.reduce((most, x) => x.evidence === null ? most : most === null ? x.evidence : Math.max(most, x.evidence), null));
    const orders = [["as given", () => cards.map((_, i) => i)], ["feature number", () => sorted(cards.map((card) => card.feature), false)]];
    if (evidence.some((x) => x !== null)) orders.push(["evidence, highest first", () => sorted(evidence, true)]);
    for (const key of keys) orders.push([`${key}, highest first`, () => sorted(cards.map((card) => value(card, key)), true)]);
    if (keys.includes("disagreement")) orders[0][0] = "disagreement";
    const picker = choose("Sort by", orders.map(([name]) => name), (i) => list.sort(orders[i][1]()));
    const list = paged(box, {name, unit: "features", texts, size: CARDS, draw, controls: cards.length > 1 ? [picker] : []});
    list.show();
  }

  // A library lies in the page as text, and is run when something first needs it.
  function library(name) {
    const text = document.querySelector(`script[data-library="${name}"]`);
    if (!text) return;
    document.head.append(make("script", {textContent: text.textContent}));
    text.remove();
  }

  function near(place, draw) {
    const seen = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      seen.disconnect();
      draw();
    }, {rootMargin: "300px"});
    seen.observe(place);
  }

  const dark = matchMedia("(prefers-color-scheme: dark)");

  function coloured(layout) {
    const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue(name).trim();
    const out = {...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {...layout.font, color: colour("--ink")},
      hoverlabel: {...layout.hoverlabel, bgcolor: colour("--panel"), bordercolor: colour("--line"), font: {color: colour("--ink")}}};
    for (const axis of new Set(["xaxis", "yaxis", ...Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name))])) {
      out[axis] = {...layout[axis], gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line")};
    }
    return out;
  }

  function chart(box, data) {
    const place = make("div", {className: "chart", role: "img", "aria-label": data.about});
    if (data.layout.height) place.style.minHeight = `${data.layout.height}px`;
    box.append(place);
    const narrow = matchMedia("(pointer: coarse)").matches;
    // A finger scrolls the page, not the chart.
    const layout = () => coloured(narrow ? {...data.layout, dragmode: false} : data.layout);
    near(place, () => {
      library("plotly");
      Plotly.newPlot(place, data.data, layout(), {responsive: true, displaylogo: false, displayModeBar: false});
      dark.addEventListener("change", () => Plotly.react(place, data.data, layout()));
    });
  }

  let circuit = 0;
  function circuits(box, data) {
    const place = make("div", {id: `circuits-${circuit++}`});
    box.append(make("div", {className: "circuits"}, place));
    near(place, () => {
      library("circuitsvis");
      CircuitsVis.render(place.id, CircuitsVis[data.component], data.props);
    });
  }

  const drawn = {table, tokens, features, chart, circuits};
  for (const box of document.querySelectorAll("figure[data-view]")) {
    const data = box.querySelector("script");
    drawn[box.dataset.view](box, JSON.parse(data.textContent), box.getAttribute("aria-label"));
    data.remove();
  }
})();
