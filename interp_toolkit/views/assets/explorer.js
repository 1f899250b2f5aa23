"use strict";
// The explorer: asks the server, and draws what comes, line by line. Its settings live in the address.
(() => {
  const {make, start, many, prose, figure, tint, tokenNode, featureCard} = elements;
  const at = (id) => document.getElementById(id);
  const SAMPLES = 4, LENS = 8, PATIENCE = 150;
  const FULL = {evidence: 5, confidence: 1};
  const EXAMPLE = "The Eiffel Tower stands in the city of Paris, the capital of France.";

  let adapters = [], panes = [], pinned = null, shown = null, running = null;

  // The server

  class Problem extends Error {}

  async function ask(path, body, signal) {
    const headers = {"Content-Type": "application/json"};
    const token = sessionStorage.getItem("token");
    if (token) headers.Authorization = `Bearer ${token}`;
    const options = body === undefined ? {headers, signal} : {method: "POST", headers, signal, body: JSON.stringify(body)};
    let response;
    try {
      response = await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem("The server does not answer; look whether it runs, and try again.");
    }
    if (response.ok) return response;
    if (response.status === 401) { at("key").hidden = false; at("token").focus(); }
    let problem = {};
    try { problem = await response.json(); } catch { /* no problem details */ }
    const wait = response.headers.get("Retry-After");
    throw new Problem((problem.detail || `The server said ${response.status}.`) + (wait ? ` (in ${wait} seconds)` : ""));
  }

  async function* lines(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const {value, done} = await reader.read();
      if (done) break;
      const pieces = (rest + value).split("\n");
      rest = pieces.pop();
      for (const piece of pieces) if (piece) yield JSON.parse(piece);
    }
  }

  async function explain(body, signal, act) {
    let ended = false;
    for await (const line of lines(await ask("/v1/explain", body, signal))) {
      if (line.type === "error") throw new Problem(line.problem.detail);
      ended = line.type === "end";
      act(line);
    }
    if (!ended) throw new Problem("The server ended before all was described; what came is shown.");
  }

  // Words for what is shown

  function siteName(site) {
    const layers = site.split(" + ").map((name) => (/^blocks\.(\d+)\.hook_resid_post$/.exec(name) || [])[1]);
    if (layers.some((layer) => layer === undefined)) return site;
    return layers.length === 1 ? `layer ${layers[0]}` : `layers ${layers.join("+")}`;
  }

  function measures(row, all = false) {
    const words = [`evidence ${figure(row.evidence, 2)}`];
    if (row.confidence !== null) words.push(`confidence ${Math.round(100 * row.confidence)}%`);
    if (all) words.push(`log-probability ${figure(row.log_prob, 2)}`);
    if (row.above_threshold === false) words.push("abstains");
    return words.join(" · ");
  }

  const visible = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "⇥");
  const said = (row) => row.description || "(nothing)";
  const valueOf = (row) => row[settings().colour];

  // Settings, in the controls and in the address

  function sitesChoices(adapter) {
    const single = adapter.sites.filter((site) => !site.includes(" + "));
    const stacks = adapter.sites.filter((site) => site.includes(" + "));
    const choices = single.length > 1 ? [["every layer on its own", single]] : [];
    return [...choices, ...stacks.map((site) => [`${siteName(site)} together`, [site]]), ...single.map((site) => [siteName(site), [site]])];
  }

  function settings() {
    const adapter = adapters[at("adapter").selectedIndex] || adapters[0];
    const choice = sitesChoices(adapter)[Math.max(0, at("sites").selectedIndex)];
    return {
      text: at("text").value, other: at("other").value, chat: at("chat").value === "true", positions: at("positions").value,
      adapter: adapter.id, sites: choice[1], compare: at("compare").value, colour: at("colour").value,
    };
  }

  function remember() {
    const now = settings(), query = new URLSearchParams();
    query.set("text", now.text);
    if (now.compare) query.set("compare", now.compare);
    if (now.compare === "text") query.set("other", now.other);
    query.set("chat", String(now.chat));
    query.set("positions", now.positions);
    query.set("adapter", now.adapter);
    query.set("sites", now.sites.join("|"));
    query.set("colour", now.colour);
    if (pinned) query.set("pin", [panes.indexOf(pinned.pane), pinned.position, pinned.site].join("|"));
    history.replaceState(null, "", `?${query}`);
  }

  function offerSites() {
    const adapter = adapters[at("adapter").selectedIndex];
    at("sites").replaceChildren(...sitesChoices(adapter).map(([name]) => make("option", {textContent: name})));
  }

  function recall() {
    const query = new URLSearchParams(location.search), get = (name, otherwise) => query.get(name) ?? otherwise;
    at("text").value = get("text", EXAMPLE);
    at("other").value = get("other", "");
    at("chat").value = get("chat", "true") === "false" ? "false" : "true";
    at("positions").value = get("positions", "content") === "all" ? "all" : "content";
    at("colour").value = get("colour", "evidence") === "confidence" ? "confidence" : "evidence";
    at("adapter").selectedIndex = Math.max(0, adapters.findIndex((adapter) => adapter.id === get("adapter", "")));
    offerSites();
    const sites = get("sites", "");
    const choice = sitesChoices(adapters[at("adapter").selectedIndex]).findIndex(([, names]) => names.join("|") === sites);
    at("sites").selectedIndex = Math.max(0, choice);
    const compare = get("compare", "");
    at("compare").value = [...at("compare").options].some((option) => option.value === compare) ? compare : "";
    at("other-field").hidden = at("compare").value !== "text";
    return {run: query.has("text"), pin: get("pin", "").split("|")};
  }

  function complain(error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Problem)) console.error(error);
    at("problem").textContent = error.message;
    at("problem").hidden = false;
  }

  // One text by one adapter: its tokens in a line, and a grid of tokens and sites

  class Pane {
    constructor(title, body) {
      this.title = title;
      this.body = body;
      this.rows = new Map();
      this.cells = new Map();
      this.asked = new Set();
      this.begin = null;
      this.strip = make("div", {className: "tokens", role: "group", "aria-label": `Tokens of ${title}; arrow keys go from token to token`});
      this.table = make("tbody", {});
      this.head = make("tr", {});
      this.grid = make("table", {className: "grid", "aria-label": `What is said of ${title}`}, make("thead", {}, this.head), this.table);
      this.node = make("section", {className: "pane", "aria-label": title}, make("h2", {}, prose(title)), this.strip, this.grid);
      this.strip.onkeydown = (event) => this.move(event);
      this.grid.onkeydown = (event) => this.move(event);
    }

    get tokens() { return this.begin.texts[0].tokens; }
    get positions() {
      const [first, end] = this.body.positions === "content" ? this.begin.texts[0].span : [0, this.tokens.length];
      return Array.from({length: end - first}, (_, i) => first + i);
    }
    key(position, site) { return `${position}|${site}`; }
    get(position, site) { return this.cells.get(this.key(position, site)); }

    async run(signal) {
      await explain(this.body, signal, (line) => {
        if (line.type === "begin") this.draw(line);
        else if (line.type === "cell") this.take(line);
      });
    }

    draw(begin) {
      this.begin = begin;
      const first = this.positions[0];
      this.head.replaceChildren(make("th", {scope: "col", textContent: "token"}), ...begin.sites.map((site) => make("th", {scope: "col", textContent: siteName(site)})));
      this.strip.replaceChildren(...this.positions.map((position) => {
        const node = tokenNode("button", this.tokens[position], null, 1);
        Object.assign(node, {type: "button", tabIndex: position === first ? 0 : -1});
        node.setAttribute("aria-pressed", "false");
        this.listen(node, position, null);
        this.rows.set(position, {token: node, cells: new Map()});
        return node;
      }));
      this.table.replaceChildren(...this.positions.map((position) => {
        const cells = begin.sites.map((site) => {
          const node = make("button", {type: "button", className: "cell waiting", textContent: "…", tabIndex: -1});
          node.dataset.site = siteName(site);
          node.setAttribute("aria-pressed", "false");
          node.setAttribute("aria-label", `${visible(this.tokens[position])}, ${siteName(site)}: waits`);
          this.listen(node, position, site);
          this.rows.get(position).cells.set(site, node);
          return make("td", {}, node);
        });
        return make("tr", {}, make("th", {scope: "row"}, make("bdi", {textContent: visible(this.tokens[position])})), ...cells);
      }));
    }

    listen(node, position, site) {
      node.onmouseenter = node.onfocus = () => point(this, position, site);
      node.onclick = () => pin(this, position, site);
    }

    take(line) {
      this.cells.set(this.key(line.position, line.site), line);
      this.paint(line.position, line.site);
      if (shown && shown.pane === this && shown.position === line.position) tell(shown);
    }

    // The token's description that speaks loudest by the measure that colours.
    best(position) {
      const rows = this.begin.sites.map((site) => this.get(position, site)).filter(Boolean).map((cell) => cell.descriptions[0]);
      return rows.reduce((best, row) => best === null || (valueOf(row) ?? -1) > (valueOf(best) ?? -1) ? row : best, null);
    }

    paint(position, site) {
      const row = this.rows.get(position), cell = this.get(position, site);
      if (!row || !cell) return;
      const node = row.cells.get(site), first = cell.descriptions[0], most = FULL[settings().colour];
      const abstains = first.above_threshold === false;
      node.className = "cell" + (abstains ? " abstains" : "") + (this.differs(position, site) ? " differs" : "");
      node.replaceChildren(make("span", {dir: "auto", textContent: start(said(first), 200)}));
      node.setAttribute("aria-label", `${visible(this.tokens[position])}, ${siteName(site)}: ${said(first)}; ${measures(first)}`);
      color(node, valueOf(first), most);
      color(row.token, valueOf(this.best(position)), most);
    }

    repaint() { for (const cell of this.cells.values()) this.paint(cell.position, cell.site); }

    differs(position, site) {
      const other = panes.find((pane) => pane !== this), cell = other && this.get(position, site), its = other && other.get(position, site);
      return Boolean(cell && its && said(cell.descriptions[0]) !== said(its.descriptions[0]));
    }

    select(position, site, is) {
      const row = this.rows.get(position);
      if (!row) return;
      row.token.setAttribute("aria-pressed", String(is));
      for (const [name, node] of row.cells) node.setAttribute("aria-pressed", String(is && name === site));
    }

    move(event) {
      const {position, site} = this.place(event.target);
      if (position === undefined) return;
      const list = this.positions, index = list.indexOf(position), sites = this.begin.sites;
      const inGrid = site !== null;
      const down = inGrid ? ["ArrowDown", "ArrowUp"] : ["ArrowRight", "ArrowLeft"];
      let next = index, column = site;
      if (event.key === down[0]) next += 1;
      else if (event.key === down[1]) next -= 1;
      else if (event.key === "Home") next = 0;
      else if (event.key === "End") next = list.length - 1;
      else if (inGrid && event.key === "ArrowRight") column = sites[Math.min(sites.indexOf(site) + 1, sites.length - 1)];
      else if (inGrid && event.key === "ArrowLeft") column = sites[sites.indexOf(site) - 1] || null;
      else if (!inGrid && event.key === "ArrowDown") column = sites[0];
      else return;
      event.preventDefault();
      const row = this.rows.get(list[Math.min(Math.max(next, 0), list.length - 1)]);
      const node = column === null ? row.token : row.cells.get(column);
      for (const other of this.rows.values()) {
        other.token.tabIndex = -1;
        for (const cell of other.cells.values()) cell.tabIndex = -1;
      }
      row.token.tabIndex = 0;
      node.tabIndex = 0;
      node.focus();
    }

    place(node) {
      for (const [position, row] of this.rows) {
        if (row.token === node) return {position, site: null};
        for (const [site, cell] of row.cells) if (cell === node) return {position, site};
      }
      return {};
    }

    // What is pointed at before it has come is asked for on its own.
    hurry(position) {
      if (this.asked.has(position) || this.begin.sites.every((site) => this.get(position, site))) return;
      this.asked.add(position);
      const body = {...this.body, positions: [position], include_null: false};
      explain(body, running && running.signal, (line) => { if (line.type === "cell") this.take(line); }).catch(complain);
    }
  }

  function color(node, value, most) {
    node.style.removeProperty("--v");
    tint(node, typeof value === "number" ? value : null, most);
  }

  // The token that is pointed at

  const hint = at("detail").firstElementChild;
  let timer = null;

  function point(pane, position, site) {
    clearTimeout(timer);
    timer = setTimeout(() => pane.hurry(position), PATIENCE);
    if (pinned) return;
    show({pane, position, site: site || loudest(pane, position)});
  }

  function loudest(pane, position) {
    const best = pane.best(position);
    return pane.begin.sites.find((site) => { const cell = pane.get(position, site); return cell && cell.descriptions[0] === best; }) || pane.begin.sites[0];
  }

  function show(place) {
    if (shown) shown.pane.select(shown.position, shown.site, false);
    shown = place;
    place.pane.select(place.position, place.site, true);
    tell(place);
  }

  function pin(pane, position, site) {
    const place = {pane, position, site: site || loudest(pane, position)};
    if (pinned && pinned.pane === pane && pinned.position === position && pinned.site === place.site) {
      pinned = null;
      show(place);
    } else {
      pinned = {...place, extras: {}};
      show(pinned);
      ask_more(pinned);
    }
    remember();
  }

  function tell(place) {
    const {pane, position, site} = place, begin = pane.begin;
    const token = make("bdi", {textContent: visible(pane.tokens[position]) || "∅"});
    const layers = begin.sites.map((name) => {
      const cell = pane.get(position, name), first = cell && cell.descriptions[0];
      const button = make("button", {type: "button"},
        make("span", {className: "where", textContent: siteName(name)}),
        first ? prose(said(first)) : make("span", {className: "waiting", textContent: "waits"}),
        make("span", {className: "measure", textContent: first ? measures(first) : ""}));
      button.setAttribute("aria-pressed", String(name === site));
      button.onclick = () => pin(pane, position, name);
      return make("li", {}, button);
    });
    const nodes = [
      make("h2", {}, token, make("small", {className: "measure", textContent: ` · token ${position + 1} of ${pane.tokens.length}`})),
      make("ul", {className: "layers"}, ...layers),
    ];
    if (place === pinned) nodes.push(...more(place));
    else nodes.push(make("p", {className: "note", textContent: "Click, or press Enter, to keep this token here."}));
    at("detail").replaceChildren(...nodes);
  }

  function more(place) {
    const {pane, extras} = place, nodes = [];
    const heading = (text) => nodes.push(make("h3", {textContent: text}));
    const listed = (rows) => make("ul", {}, ...alike(rows).map(([row, count]) => make("li", {}, prose(said(row)), make("span", {className: "measure", textContent: count > 1 ? ` ×${count}` : ""}), make("div", {className: "measure", textContent: measures(row, true)}))));
    heading(`${siteName(place.site)}: further samples`);
    nodes.push(extras.samples ? listed(extras.samples) : make("p", {className: "waiting", textContent: "waits"}));
    if (pane.begin.null) {
      heading("Without any vector the adapter says");
      nodes.push(listed(pane.begin.null));
    }
    if (!place.site.includes(" + ")) {
      heading("Logit lens at the same place");
      nodes.push(extras.lens ? make("p", {}, ...extras.lens.flatMap((text, i) => [i ? ", " : "", make("bdi", {textContent: `“${visible(text)}”`})])) : make("p", {className: "waiting", textContent: "waits"}));
      heading("Does what it says happen?");
      nodes.push(extras.steer || (extras.steer = steering(place)));
    }
    const loose = make("button", {type: "button", textContent: "Let go of this token"});
    loose.onclick = () => pin(pane, place.position, place.site);
    nodes.push(loose);
    return nodes;
  }

  // Samples of one text once, with their number.
  function alike(rows) {
    const counts = new Map();
    for (const row of rows) {
      const [first, count] = counts.get(said(row)) || [row, 0];
      counts.set(said(row), [first, count + 1]);
    }
    return [...counts.values()];
  }

  function ask_more(place) {
    const {pane, position, site, extras} = place, signal = running && running.signal;
    const refresh = () => { if (pinned === place) tell(place); };
    const rows = [];
    const body = {...pane.body, positions: [position], sites: [site], sampling: {n: SAMPLES}, include_null: false};
    explain(body, signal, (line) => { if (line.type === "cell") rows.push(...line.descriptions); })
      .then(() => { extras.samples = rows; refresh(); }).catch(complain);
    if (site.includes(" + ")) return;
    ask("/v1/lens", {text: pane.body.texts[0], site, position, chat: pane.begin.chat, tokens: LENS}, signal)
      .then((response) => response.json()).then(({tokens}) => { extras.lens = tokens; refresh(); }).catch(complain);
  }

  function steering(place) {
    const {pane, position, site} = place;
    const prompt = make("input", {type: "text", value: "Tell me a short story.", maxLength: 2000});
    const strength = make("input", {type: "range", min: -2, max: 2, step: 0.1, value: 0.3});
    const output = make("output", {textContent: "0.3"});
    strength.oninput = () => { output.textContent = figure(Number(strength.value), 1); };
    const what = make("select", {}, make("option", {value: "vector", textContent: "the token's vector"}));
    if (adapters.find((adapter) => adapter.id === pane.begin.adapter).has_way_back) what.append(make("option", {value: "description", textContent: "the vector of its description"}));
    const go = make("button", {type: "submit", textContent: "Add it and see"});
    const answers = make("div", {className: "answers", "aria-live": "polite"});
    const form = make("form", {className: "steer"},
      make("label", {}, "While the model answers", prompt), make("label", {}, "add", what),
      make("label", {}, make("span", {}, "at a strength of ", output, " lengths of the stream"), strength), go, answers);
    form.onsubmit = async (event) => {
      event.preventDefault();
      go.disabled = true;
      answers.replaceChildren(make("p", {className: "waiting", textContent: "waits"}));
      const cell = pane.get(position, site);
      const body = {text: pane.body.texts[0], site, position, chat: pane.begin.chat, adapter: pane.begin.adapter, prompt: prompt.value, strength: Number(strength.value)};
      if (what.value === "description" && cell) body.description = said(cell.descriptions[0]);
      try {
        const result = await (await ask("/v1/steer", body)).json();
        const shown = [["plain", "Nothing added"], ["steered", "This added"], ["random", "A random direction of equal length added"]];
        answers.replaceChildren(...shown.map(([name, title]) => make("div", {className: name}, make("div", {className: "measure", textContent: title}), prose(result[name] || "(nothing)"))));
      } catch (error) { answers.replaceChildren(); complain(error); }
      go.disabled = false;
    };
    return form;
  }

  // Runs

  function bodies(now, messages) {
    const body = {texts: [messages || now.text], adapter: now.adapter, sites: now.sites, positions: messages ? "all" : now.positions, chat: now.chat, include_null: true, on_mismatch: "warn"};
    const title = messages ? "the text and its answer" : "the text";
    if (now.compare === "text") return [["the text", body], ["the second text", {...body, texts: [now.other]}]];
    if (!now.compare) return [[title, body]];
    const other = adapters.find((adapter) => adapter.id === now.compare);
    const sites = now.sites.every((site) => other.sites.includes(site)) ? now.sites : sitesChoices(other)[0][1];
    return [[now.adapter, body], [other.id, {...body, adapter: other.id, sites}]];
  }

  async function run(messages, pin_then) {
    if (running) running.abort();
    const mine = running = new AbortController(), now = settings(), began = performance.now();
    pinned = shown = null;
    at("problem").hidden = true;
    at("stop").hidden = false;
    panes = bodies(now, messages).map(([title, body]) => new Pane(title, body));
    at("panes").replaceChildren(...panes.map((pane) => pane.node));
    at("detail").replaceChildren(hint);
    at("status").textContent = "reading the text";
    remember();
    const count = () => panes.reduce((sum, pane) => sum + pane.cells.size, 0);
    const total = () => panes.reduce((sum, pane) => sum + (pane.begin ? pane.begin.cells : 0), 0);
    const ticking = setInterval(() => { at("status").textContent = total() ? `${many(count())} of ${many(total())} described` : "reading the text"; }, 200);
    try {
      await Promise.all(panes.map((pane) => pane.run(mine.signal)));
      at("status").textContent = `${many(count())} described in ${figure((performance.now() - began) / 1000, 1)} seconds`;
      panes.forEach((pane) => pane.repaint());
      if (pin_then && pin_then.length === 3) restore(pin_then);
    } catch (error) {
      if (error.name === "AbortError") { if (running === mine) at("status").textContent = "stopped"; } else { at("status").textContent = ""; complain(error); mine.abort(); }
    } finally {
      clearInterval(ticking);
      if (running === mine) { at("stop").hidden = true; at("save-page").disabled = at("save-json").disabled = !count(); }
    }
  }

  function restore([number, position, site]) {
    const pane = panes[Number(number)];
    if (pane && pane.get(Number(position), site)) pin(pane, Number(position), site);
  }

  async function answer() {
    const now = settings();
    at("problem").hidden = true;
    at("status").textContent = "the model answers";
    try {
      const result = await (await ask("/v1/answer", {text: now.text, chat: now.chat})).json();
      if (now.chat) return run([{role: "user", content: now.text}, {role: "assistant", content: result.answer}]);
      at("text").value = now.text + result.answer;
      return run();
    } catch (error) { at("status").textContent = ""; complain(error); }
  }

  // Features of an SAE

  let cards = 0;

  function tab(name) {
    for (const one of ["tokens", "features"]) {
      at(one).hidden = one !== name;
      at(`tab-${one}`).setAttribute("aria-pressed", String(one === name));
    }
    for (const id of ["save-page", "save-json"]) at(id).hidden = name !== "tokens";
    if (name === "features" && !cards) search(true);
  }

  async function search(anew) {
    if (anew) { cards = 0; at("cards").replaceChildren(); }
    at("problem").hidden = true;
    try {
      const query = new URLSearchParams({query: at("query").value, start: cards, count: 10});
      const {total, features} = await (await ask(`/v1/features?${query}`)).json();
      cards += features.length;
      at("cards").append(...features.map(featureCard));
      at("count").textContent = `${many(total)} ${total === 1 ? "feature" : "features"}`;
      at("further").hidden = cards >= total;
    } catch (error) { complain(error); }
  }

  // Files

  function download(name, kind, content) {
    const link = make("a", {href: URL.createObjectURL(new Blob([content], {type: kind})), download: name});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  function saveJson() {
    const views = panes.map((pane) => ({request: pane.body, ...pane.begin, cells: [...pane.cells.values()]}));
    download("descriptions.json", "application/json", JSON.stringify({settings: settings(), views}, null, 1));
  }

  // The same figure as in the library's reports, with its script inside.
  async function savePage() {
    const files = ["page.css", "elements.js", "page.js"];
    const [style, ...scripts] = await Promise.all(files.map(async (name) => (await ask(`/assets/${name}`)).text()));
    const texts = panes.map((pane) => ({
      name: pane.title,
      layers: pane.begin.sites.map((site) => ({name: siteName(site), tokens: pane.positions.map((position) => {
        const cell = pane.get(position, site), first = cell && cell.descriptions[0];
        return {text: pane.tokens[position], value: first ? first.evidence : null, breaks: false, notes: cell ? cell.descriptions.map((row) => [said(row) + (row.above_threshold === false ? " (abstains)" : ""), row.evidence]) : []};
      })})),
    }));
    const data = JSON.stringify({texts, value: "evidence"}).replaceAll("<", "\\u003c");
    const policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";
    const about = `${panes[0].begin.model}, adapter ${panes.map((pane) => `${pane.begin.adapter} (${pane.begin.digest})`).join(" and ")}. Evidence is in nats per token; near zero a description is a guess.`;
    const clean = make("p", {textContent: about}).outerHTML;
    const page = `<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="${policy}"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark"><title>What the model says</title><link rel="icon" href="data:,"><style>${style}</style></head>\n<body><main><header><h1>What the model says</h1>${clean}</header><figure class="view" data-view="tokens" aria-label="Tokens"><script type="application/json">${data}<\/script></figure></main><script>${scripts.join("\n")}<\/script></body></html>\n`;
    download("descriptions.html", "text/html", page);
  }

  // The beginning

  async function begin() {
    try {
      const [models, list] = await Promise.all(["/v1/models", "/v1/adapters"].map(async (path) => (await ask(path)).json()));
      adapters = list.data;
      at("about").textContent = `${models.data[0].id} reads a text and describes, in its own words, what it holds at each token.`;
      at("adapter").replaceChildren(...adapters.map((adapter) => make("option", {value: adapter.id, textContent: adapter.id})));
      at("compare").append(...adapters.map((adapter) => make("option", {value: adapter.id, textContent: `adapter ${adapter.id}`})));
      at("tabs").hidden = !models.data[0].features;
      const {run: at_once, pin} = recall();
      if (at_once) await run(undefined, pin);
    } catch (error) { complain(error); }
  }

  at("options").open = matchMedia("(min-width: 900px)").matches;
  at("ask").onsubmit = (event) => { event.preventDefault(); run(); };
  at("stop").onclick = () => running && running.abort();
  at("answer").onclick = answer;
  at("adapter").onchange = () => { offerSites(); remember(); };
  at("compare").onchange = () => { at("other-field").hidden = at("compare").value !== "text"; remember(); };
  at("colour").onchange = () => { panes.forEach((pane) => pane.repaint()); remember(); };
  at("tab-tokens").onclick = () => tab("tokens");
  at("tab-features").onclick = () => tab("features");
  at("search").onsubmit = (event) => { event.preventDefault(); search(true); };
  at("further").onclick = () => search(false);
  at("save-json").onclick = saveJson;
  at("save-page").onclick = () => savePage().catch(complain);
  at("key").onsubmit = (event) => {
    event.preventDefault();
    sessionStorage.setItem("token", at("token").value);
    at("key").hidden = at("problem").hidden = true;
    begin();
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && pinned) pin(pinned.pane, pinned.position, pinned.site);
  });
  begin();
})();
