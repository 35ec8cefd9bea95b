// The concept explorer: draws a packed bundle into an element. One module for the live widget (the default export, which
// anywidget calls) and for the page of the book (`start`). It depends on nothing, asks nobody for anything, and puts
// everything that comes from the bundle or from a rater on the page as text, never as markup.

const COLUMNS = ["rater", "item", "kind", "rating", "name", "note", "seconds", "blind"];
const SCALE = [[1, "no pattern"], [2, ""], [3, "partly clear"], [4, ""], [5, "one clear programme"]];
const QUARTER = 12; // pixels within which the pointer finds a cell

// ---- the bundle ---------------------------------------------------------------------------------------------------------
export async function unpack(text) {
  const packed = Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = await new Response(stream).arrayBuffer();
  const end = 4 + new DataView(raw).getUint32(0, true);
  const bundle = JSON.parse(new TextDecoder().decode(new Uint8Array(raw, 4, end - 4)));
  const bytes = (at, n) => new Uint8Array(raw, end + at, n);
  bundle.pairs.forEach((pair, p) => {
    const view = new DataView(raw, end + pair.xy);
    pair.xy = Float32Array.from({ length: 2 * pair.cells }, (_, i) => view.getUint16(2 * i, true) / bundle.grid);
    pair.type = bytes(pair.type, pair.cells);
    if (pair.conditions) pair.condition = bytes(pair.condition, pair.cells);
    pair.name = `${pair.model} on ${pair.data}`;
    pair.items.forEach((item, i) => {
      Object.assign(item, { pair: p, at: i, key: `${pair.model}/${pair.data}/${item.id}` });
      item.levels = bytes(item.levels, pair.cells);
    });
  });
  return bundle;
}

// The same order for the same seed and pair, in every browser: Fisher and Yates with the generator mulberry32.
export function shuffled(n, seed, name) {
  let state = seed >>> 0;
  for (const c of name) state = (Math.imul(state, 31) + c.codePointAt(0)) >>> 0;
  const random = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

// ---- the sheet (scprimer/explorer/sheet.py writes and reads the same) -----------------------------------------------------
const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

export function writeSheet(rows, rater) {
  const lines = rows.map((r) => [rater.trim(), r.item, r.kind, r.rating ?? "", r.name, r.note, r.seconds.toFixed(1), r.blind ? "yes" : "no"]);
  return [COLUMNS, ...lines].map((line) => line.map((x) => quoted(String(x))).join(",") + "\n").join("");
}

function fields(text) {
  const lines = [];
  let line = [], field = "", inside = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (inside) {
      if (c !== '"') field += c;
      else if (text[i + 1] === '"') { field += c; i++; } else inside = false;
    } else if (c === '"') inside = true;
    else if (c === ",") { line.push(field); field = ""; }
    else if (c === "\n") { lines.push([...line, field]); line = []; field = ""; }
    else if (c !== "\r") field += c;
  }
  if (field || line.length) lines.push([...line, field]);
  return lines.filter((l) => l.length > 1 || l[0]);
}

export function parseSheet(text, kinds) {
  const [head = [], ...lines] = fields(text.replace(/^\ufeff/, ""));
  if (head.join() !== COLUMNS.join()) throw new Error(`This is no sheet of the explorer: its first line should be ${COLUMNS.join()}.`);
  const raters = new Set(), seen = new Set();
  const rows = lines.map((line, i) => {
    const wrong = (words) => new Error(`Row ${i + 2} of the sheet ${words}.`);
    if (line.length !== COLUMNS.length) throw wrong(`has ${line.length} fields instead of ${COLUMNS.length}`);
    const [rater, item, kind, rating, name, note, seconds, blind] = line;
    raters.add(rater.trim());
    if (kinds.get(item) !== kind) throw wrong(`names ${item}, which is not in this explorer: the sheet belongs to another one`);
    if (seen.has(item)) throw wrong(`names ${item} for the second time`);
    seen.add(item);
    if (!/^[1-5]?$/.test(rating)) throw wrong(`has the rating ${rating}, which is no whole number from 1 to 5`);
    if (!/^\d+(\.\d+)?$/.test(seconds)) throw wrong(`has no number of seconds`);
    if (blind !== "yes" && blind !== "no") throw wrong(`says ${blind} where it should say whether it was rated blind, yes or no`);
    return { item, kind, rating: rating ? Number(rating) : null, name, note, seconds: Number(seconds), blind: blind === "yes" };
  });
  if (raters.size > 1) throw new Error("The sheet holds several raters: a sheet belongs to one.");
  if (raters.has("")) throw new Error("The sheet names no rater.");
  return { rater: [...raters][0] ?? "", rows };
}

// ---- small helpers --------------------------------------------------------------------------------------------------------
function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((c) => c != null));
  return made;
}

const percent = (x) => `${Math.round(100 * x)} %`;
const small = (p) => (p >= 0.001 ? String(Number(p.toPrecision(2))) : p === 0 ? "0" : p.toExponential(0).replace("e-", "e−"));
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
const options = (select, names, chosen) => select.replaceChildren(...names.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));

function mixed(stops) { // 256 colours between the stops, as CSS
  const rgb = stops.map((s) => [1, 3, 5].map((i) => parseInt(s.trim().slice(i, i + 2), 16)));
  return Array.from({ length: 256 }, (_, i) => {
    const t = (i / 255) * (rgb.length - 1), k = Math.min(Math.floor(t), rgb.length - 2);
    return `rgb(${rgb[k].map((from, c) => Math.round(from + (rgb[k + 1][c] - from) * (t - k))).join(" ")})`;
  });
}

function measure(share, words, colour, minus = false) { // a bar with its number
  const inner = h("span", { class: "ex-fill" });
  inner.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  if (colour) inner.style.background = colour;
  if (minus) inner.classList.add("ex-minus");
  return h("span", { class: "ex-measure" }, h("span", { class: "ex-bar", "aria-hidden": "true" }, inner), h("span", { class: "ex-number" }, words));
}

// ---- the explorer ---------------------------------------------------------------------------------------------------------
// host: { rows, rater, seed, keep(rows, rater), listen(callback) }
function draw(root, bundle, host) {
  const kinds = new Map(bundle.pairs.flatMap((p) => p.items.map((i) => [i.key, i.kind])));
  const looked = new Map(); // seconds an item was in view
  let rows = new Map(), rater = "", pair = bundle.pairs[0], item = pair.items[0];
  let blind = false, seed = host.seed, order = [], colour = "activation", marked = null, since = performance.now();

  const take = (given) => {
    rows = new Map(given.rows.map((r) => [r.item, { ...r }]));
    rater = given.rater;
    for (const r of rows.values()) looked.set(r.item, r.seconds);
  };
  take(host);

  // The controls are made once and changed in place, so that the focus never gets lost.
  const group = Math.random().toString(36).slice(2); // radio buttons of two explorers on one page must not mix
  const models = [...new Set(bundle.pairs.map((p) => p.model))];
  const model = h("select", { onchange: () => choosePair(model.value, data.value) });
  const data = h("select", { onchange: () => choosePair(model.value, data.value) });
  const items = h("select", { onchange: () => show(pair.items[Number(items.value)]) });
  const chooser = h("label", {}, "Concept or neuron", items);
  const search = h("input", { type: "search", autocomplete: "off", spellcheck: "false", oninput: () => find() });
  const found = h("div", { class: "ex-found", role: "status" });
  const searcher = h("label", {}, "Find by gene", search);
  const blindBox = h("input", { type: "checkbox", onchange: () => setBlind(blindBox.checked) });
  const seedBox = h("input", { type: "number", min: 0, max: 2147483647, step: 1, value: seed, onchange: () => reseed() });
  const seeder = h("label", { class: "ex-seed" }, "Order number", seedBox);
  const progress = h("progress", { "aria-label": "Rated items" });
  const progressText = h("span", { class: "ex-quiet" });
  const position = h("span", { class: "ex-position" });
  const hint = h("p", { class: "ex-quiet ex-hint" }, "Concepts and neurons come mixed and without their names. Rate each before you look at it openly. Everybody who writes the same number sees the same order.");
  const skip = h("button", { type: "button", onclick: () => nextUnrated() }, "Next unrated");
  const walk = h("div", { class: "ex-walk", role: "group", "aria-label": "Go through the items", onkeydown: arrows },
    h("button", { type: "button", onclick: () => step(-1) }, "Previous"),
    h("button", { type: "button", onclick: () => step(1) }, "Next"), skip, position);
  const summary = h("p", { class: "ex-summary", role: "status", "aria-live": "polite" });

  const canvas = h("canvas", { role: "img" });
  const scene = h("div", { class: "ex-scene", tabindex: 0, role: "group", "aria-label": "Embedding of the cells; the left and right arrow keys show another item", onkeydown: arrows }, canvas);
  const readout = h("p", { class: "ex-quiet ex-readout" });
  const legend = h("div", { class: "ex-legend" });
  const colours = h("div", { class: "ex-choice", role: "radiogroup", "aria-label": "Colour of the cells" });

  const parts = {}, bodies = {};
  for (const [name, title] of [["groups", "Activation by cell type"], ["genes", "Top genes"], ["pathways", "Pathways"], ["cells", "Top cells"], ["near", "Nearest concepts"]]) {
    const head = h("div", { class: "ex-head", id: `ex-${group}-${name}` }, title);
    bodies[name] = h("div", {});
    parts[name] = h("div", { class: `ex-part ex-${name}`, role: "group", "aria-labelledby": head.id }, head, bodies[name]);
    parts[name].head = head;
  }

  const ratings = SCALE.map(([value, words]) => {
    const radio = h("input", { type: "radio", name: `ex-${group}-rating`, value, onchange: () => edit({ rating: value, blind }) });
    return [radio, h("label", {}, radio, h("span", {}, String(value), h("span", { class: "ex-quiet" }, words && ` ${words}`)))];
  });
  const name = h("input", { type: "text", autocomplete: "off", maxlength: 120, oninput: () => edit({ name: name.value }) });
  const note = h("textarea", { rows: 2, oninput: () => edit({ note: note.value }) });
  const who = h("input", { type: "text", autocomplete: "off", maxlength: 60, oninput: () => { rater = who.value; keep(); } });
  const file = h("input", { type: "file", accept: ".csv,text/csv", onchange: () => load() });
  const said = h("p", { class: "ex-said", role: "status", "aria-live": "polite" });
  const count = h("span", { class: "ex-quiet" });

  const view = h("div", { class: "ex", role: "region", "aria-label": bundle.title },
    h("div", { class: "ex-title" }, bundle.title),
    h("div", { class: "ex-row ex-choose" }, h("label", {}, "Model", model), h("label", {}, "Data", data), chooser, searcher),
    found,
    h("div", { class: "ex-row ex-blind" }, h("label", { class: "ex-check" }, blindBox, "Rate blind"), seeder, progress, progressText),
    hint,
    h("div", { class: "ex-row" }, walk),
    summary,
    h("div", { class: "ex-grid" },
      h("div", {}, h("div", { class: "ex-part ex-map" }, colours, scene, legend, readout), parts.groups),
      h("div", {}, parts.genes, parts.pathways),
      h("div", {}, parts.cells, parts.near)),
    h("div", { class: "ex-sheet" },
      h("fieldset", {}, h("legend", {}, "How interpretable is it?"), h("div", { class: "ex-choice ex-scale" }, ...ratings.map(([, label]) => label))),
      h("label", {}, "Name", name), h("label", {}, "Note", note)),
    h("div", { class: "ex-row ex-files" }, h("label", {}, "Rater", who),
      h("button", { type: "button", onclick: () => save() }, "Save sheet (CSV)"),
      h("label", { class: "ex-file" }, h("span", {}, "Load sheet"), file), count),
    said);
  root.replaceChildren(view);

  // ---- choosing
  function choosePair(m, d) {
    const there = bundle.pairs.filter((p) => p.model === m);
    setPair(there.find((p) => p.data === d) ?? there[0]);
    show(blind ? pair.items[order[firstUnrated()]] : pair.items[0]);
  }
  function setPair(chosen) {
    pair = chosen;
    options(model, models.map((m) => [m, m]), pair.model);
    options(data, bundle.pairs.filter((p) => p.model === pair.model).map((p) => [p.data, p.data]), pair.data);
    if (colour === "condition" && !pair.conditions) colour = "activation";
    drawChoice();
    arrange();
  }
  function arrange() { // the order of the items, and what may be seen of them
    order = blind ? shuffled(pair.items.length, seed, pair.name) : pair.items.map((_, i) => i);
    for (const part of [chooser, searcher, parts.near]) part.hidden = blind;
    for (const part of [seeder, progress, progressText, skip, hint]) part.hidden = !blind;
    const listed = (kind, label) => {
      const of = pair.items.filter((i) => i.kind === kind);
      return of.length ? h("optgroup", { label }, ...of.map((i) => h("option", { value: i.at }, titled(i)))) : null;
    };
    items.replaceChildren(...(blind ? [] : [listed("concept", "Concepts"), listed("neuron", "Neurons")].filter(Boolean)));
    if (blind) { search.value = ""; found.replaceChildren(); } else find();
  }
  const titled = (i) => (rows.get(i.key)?.name ? `${i.id}: ${rows.get(i.key).name}` : i.id);
  function setBlind(on) {
    bank();
    blind = on;
    arrange();
    show(on ? pair.items[order[firstUnrated()]] : item);
  }
  function reseed() {
    const wanted = Math.floor(Number(seedBox.value));
    seed = wanted >= 0 && wanted < 2 ** 31 ? wanted : host.seed;
    seedBox.value = seed;
    setBlind(true);
  }
  const isRated = (i) => rows.get(i.key)?.rating != null;
  function firstUnrated() {
    return Math.max(0, order.findIndex((i) => !isRated(pair.items[i])));
  }
  function step(by) {
    const at = order.indexOf(item.at);
    show(pair.items[order[(at + by + order.length) % order.length]]);
  }
  function nextUnrated() {
    const at = order.indexOf(item.at), n = order.length;
    const rest = Array.from({ length: n - 1 }, (_, i) => pair.items[order[(at + 1 + i) % n]]);
    const next = rest.find((i) => !isRated(i));
    if (next) show(next);
    else say(isRated(item) ? "All items of this pair are rated." : "This is the last item without a rating.");
  }
  function arrows(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    step(by);
  }
  function find() {
    const wanted = search.value.trim().toUpperCase();
    if (!wanted) { found.replaceChildren(); return; }
    const hits = [];
    for (const i of pair.items) {
      const rank = i.genes.findIndex(([g]) => pair.genes[g].toUpperCase().startsWith(wanted));
      if (rank >= 0) hits.push([rank, i]);
    }
    hits.sort((a, b) => a[0] - b[0] || a[1].at - b[1].at);
    found.replaceChildren(hits.length ? `${plural(hits.length, "item")} with ${wanted} among the top genes: ` : `No item has ${wanted} among its top genes.`,
      ...hits.slice(0, 12).map(([rank, i]) => link(i, `${titled(i)} (${pair.genes[i.genes[rank][0]]}, no. ${rank + 1})`)));
  }
  function link(i, text) {
    return h("button", { type: "button", class: "ex-link", onclick: () => { if (i.pair !== bundle.pairs.indexOf(pair)) setPair(bundle.pairs[i.pair]); show(i); } }, text);
  }

  // ---- showing
  function show(chosen) {
    bank();
    item = chosen;
    marked = null;
    if (!blind) items.value = String(item.at);
    drawGroups();
    drawGenes();
    drawLists();
    drawSheet();
    describe();
    paint();
  }
  function describe() {
    const at = order.indexOf(item.at) + 1, n = order.length;
    position.textContent = `${at} of ${n}`;
    const best = means().reduce((a, b) => (b.mean > a.mean ? b : a));
    const genes = item.genes.slice(0, 3).map(([g]) => pair.genes[g]).join(", ");
    const kind = blind ? `Item ${at}` : `${item.kind === "concept" ? "Concept" : "Neuron"} ${item.id}`;
    const stable = blind || item.stable == null ? "" : item.stable ? " Stable: it came back with other seeds." : " Not stable: it did not come back with other seeds.";
    summary.textContent = `${kind} of ${pair.name}: strongest in ${best.name} (mean ${percent(best.mean)} of the highest cell).${genes ? ` Top genes: ${genes}.` : ""}${stable}`;
    canvas.setAttribute("aria-label", `${plural(pair.cells, "cell")} on a two-dimensional embedding, coloured by ${colour}. ${summary.textContent}`);
  }
  function means() { // mean activation of each cell type within each condition, as a share of the item's range
    const k = pair.conditions?.length ?? 1;
    const sums = new Float64Array(pair.types.length * k), counts = new Uint32Array(sums.length);
    for (let c = 0; c < pair.cells; c++) {
      const at = pair.type[c] * k + (pair.condition ? pair.condition[c] : 0);
      sums[at] += item.levels[c];
      counts[at]++;
    }
    return Array.from(sums, (sum, at) => {
      const type = pair.types[Math.floor(at / k)], condition = pair.conditions?.[at % k];
      return { type, condition, at, n: counts[at], mean: counts[at] ? sum / counts[at] / 255 : 0, name: condition == null ? type : `${type}, ${condition}` };
    });
  }
  function drawGroups() {
    parts.groups.head.textContent = pair.conditions ? "Activation by cell type and condition" : "Activation by cell type";
    const all = means(), k = pair.conditions?.length ?? 1, top = Math.max(...all.map((g) => g.mean), 1e-9);
    const line = (t) => h("tr", {}, h("th", { scope: "row" }, pair.types[t]), ...all.slice(t * k, t * k + k).map((g) =>
      h("td", { title: plural(g.n, "cell") }, g.n ? measure(g.mean / top, percent(g.mean), pair.conditions ? pair.conditionColours[g.at % k] : pair.typeColours[t]) : "no cell")));
    bodies.groups.replaceChildren(h("table", {},
      pair.conditions && h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Cell type"), ...pair.conditions.map((c) => h("th", { scope: "col" }, c)))),
      h("tbody", {}, ...pair.types.map((_, t) => line(t)))),
      h("p", { class: "ex-quiet" }, "Mean, in % of the highest cell; bars are drawn to the highest mean."));
  }
  function drawGenes() {
    const top = Math.max(...item.genes.map(([, a]) => Math.abs(a)), 1e-12);
    // The size of an attribution would tell a concept from a neuron.
    const words = (a) => `${a < 0 ? "−" : ""}${blind ? percent(Math.abs(a) / top) : small(Math.abs(a))}`;
    const lines = item.genes.map(([g, a]) => h("tr", {}, h("th", { scope: "row" }, pair.genes[g]), h("td", {}, measure(Math.abs(a) / top, words(a), null, a < 0))));
    bodies.genes.replaceChildren(lines.length
      ? h("table", {}, h("tbody", {}, ...lines))
      : h("p", {}, item.attributed ? "No gene changes it." : "No attribution was computed for this item."),
      lines.length ? h("p", { class: "ex-quiet" }, blind ? "Attribution, in % of the largest." : "Attribution: how far a gene raises (or, with a minus, lowers) the activation.") : "");
  }
  function drawLists() {
    bodies.pathways.replaceChildren(item.pathways.length
      ? h("ul", {}, ...item.pathways.map(([t, p]) => h("li", {}, `${bundle.terms[t]} `, h("span", { class: "ex-quiet" }, `adjusted p ${small(p)}`))))
      : h("p", {}, "No significant pathway."));
    bodies.cells.replaceChildren(h("ol", {}, ...item.cells.map((c) => h("li", {}, h("button", { type: "button", class: "ex-link", "aria-pressed": "false", onclick: (e) => mark(c, e.currentTarget) }, cellWords(c))))));
    if (blind) { bodies.near.replaceChildren(); return; }
    bodies.near.replaceChildren(item.near.length
      ? h("ul", {}, ...item.near.map(([p, i, cosine]) => {
        const other = bundle.pairs[p].items[i];
        return h("li", {}, link(other, `${titled(other)}${bundle.pairs[p] === pair ? "" : `, ${bundle.pairs[p].name}`}`), h("span", { class: "ex-quiet" }, ` cosine ${cosine.toFixed(2)}`));
      }))
      : h("p", {}, "None: no concept shares its genes."));
  }
  const cellWords = (c) => `${pair.types[pair.type[c]]}${pair.conditions ? `, ${pair.conditions[pair.condition[c]]}` : ""}, ${percent(item.levels[c] / 255)}`;
  function mark(cell, button) {
    marked = marked === cell ? null : cell;
    for (const b of bodies.cells.querySelectorAll("button")) b.setAttribute("aria-pressed", String(b === button && marked != null));
    readout.textContent = marked == null ? "" : `Ringed: ${cellWords(cell)}`;
    paint();
  }

  // ---- the embedding
  function drawChoice() {
    const choices = ["activation", "cell type", ...(pair.conditions ? ["condition"] : [])];
    colours.replaceChildren(...choices.map((c) => h("label", {}, h("input", { type: "radio", name: `ex-${group}-colour`, value: c, checked: c === colour, onchange: () => { colour = c; describe(); paint(); } }), h("span", {}, c))));
  }
  const place = () => {
    const side = canvas.clientWidth, edge = 10;
    return (c) => [edge + pair.xy[2 * c] * (side - 2 * edge), edge + (1 - pair.xy[2 * c + 1]) * (side - 2 * edge)];
  };
  function paint() {
    const side = canvas.clientWidth;
    if (!side) return;
    const ratio = window.devicePixelRatio || 1, style = getComputedStyle(view);
    if (canvas.width !== Math.round(side * ratio)) canvas.width = canvas.height = Math.round(side * ratio);
    const pen = canvas.getContext("2d"), where = place();
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, side, side);
    const radius = Math.max(1.3, Math.min(3.5, (side / 420) * Math.sqrt(9000 / pair.cells)));
    const ramp = mixed(style.getPropertyValue("--ex-ramp").split(","));
    const [codes, palette] = colour === "activation" ? [item.levels, ramp] : colour === "condition" ? [pair.condition, pair.conditionColours] : [pair.type, pair.typeColours];
    const cells = Array.from(codes.keys());
    if (colour === "activation") cells.sort((a, b) => codes[a] - codes[b]); // the active ones on top
    for (const c of cells) {
      pen.fillStyle = palette[codes[c]];
      pen.beginPath();
      pen.arc(...where(c), radius, 0, 2 * Math.PI);
      pen.fill();
    }
    if (marked != null) {
      pen.strokeStyle = style.color;
      pen.lineWidth = 2.5;
      pen.beginPath();
      pen.arc(...where(marked), radius + 6, 0, 2 * Math.PI);
      pen.stroke();
    }
    const key = (text, tint) => { const dot = h("i", {}); dot.style.background = tint; return h("span", {}, dot, text); };
    if (colour === "activation") legend.replaceChildren(h("span", {}, "lowest", h("i", { class: "ex-ramp" }), "highest cell"));
    else if (colour === "condition") legend.replaceChildren(...pair.conditions.map((c, i) => key(c, pair.conditionColours[i])));
    else legend.replaceChildren(...pair.types.map((t, i) => key(t, pair.typeColours[i])));
  }
  function point(event) {
    const box = canvas.getBoundingClientRect(), where = place();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    let best = -1, least = QUARTER ** 2;
    for (let c = 0; c < pair.cells; c++) {
      const [u, v] = where(c), far = (u - x) ** 2 + (v - y) ** 2;
      if (far < least) [best, least] = [c, far];
    }
    readout.textContent = best < 0 ? "" : `Here: ${cellWords(best)}`;
  }
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);

  // ---- the sheet
  function bank(unseen = false) { // the seconds that the item was in view
    const now = performance.now();
    if (!unseen) looked.set(item.key, (looked.get(item.key) ?? 0) + (now - since) / 1000);
    since = now;
  }
  function edit(change) {
    bank();
    const row = rows.get(item.key) ?? { item: item.key, kind: item.kind, rating: null, name: "", note: "", seconds: 0, blind };
    rows.set(item.key, { ...row, ...change, seconds: Math.round(10 * looked.get(item.key)) / 10 });
    if ("name" in change && !blind) items.selectedOptions[0].textContent = titled(item);
    keep();
    drawCount();
  }
  function keep() {
    const trouble = host.keep([...rows.values()].map((r) => ({ ...r })), rater);
    if (trouble) say(trouble);
  }
  function drawSheet() {
    const row = rows.get(item.key);
    for (const [radio] of ratings) radio.checked = Number(radio.value) === row?.rating;
    name.value = row?.name ?? "";
    note.value = row?.note ?? "";
    who.value = rater;
    drawCount();
  }
  function drawCount() {
    const done = pair.items.filter(isRated).length;
    progress.max = pair.items.length;
    progress.value = done;
    progressText.textContent = `${done} of ${pair.items.length} rated`;
    count.textContent = `${plural(rows.size, "row")} in the sheet`;
  }
  const say = (words, wrong = false) => {
    said.textContent = words;
    said.classList.toggle("ex-wrong", wrong);
  };
  function save() {
    if (!rater.trim()) {
      say("Write your name or initials as rater first, so that sheets can be told apart.", true);
      who.focus();
      return;
    }
    const address = URL.createObjectURL(new Blob([writeSheet([...rows.values()], rater)], { type: "text/csv" }));
    const safe = rater.trim().replace(/[^\p{L}\p{N}]+/gu, "-");
    h("a", { href: address, download: `concepts-${safe}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    say(`Saved ${plural(rows.size, "row")}.`);
  }
  async function load() {
    const [given] = file.files;
    if (!given) return;
    try {
      take(parseSheet(await given.text(), kinds));
    } catch (error) {
      say(`${given.name}: ${error.message} Nothing was changed.`, true);
      return;
    } finally {
      file.value = ""; // the same file may be given again once it is mended
    }
    keep();
    refresh();
    say(`Loaded ${plural(rows.size, "row")} of ${rater}.`);
  }
  function refresh() {
    arrange();
    if (!blind) items.value = String(item.at);
    drawSheet();
    drawLists();
  }

  // ---- what changes around it
  const away = () => bank(!document.hidden); // coming back, the time away does not count
  document.addEventListener("visibilitychange", away);
  const sized = new ResizeObserver(paint);
  sized.observe(scene);
  const themed = new MutationObserver(paint);
  for (const e of [document.documentElement, document.body]) themed.observe(e, { attributes: true, attributeFilter: ["data-theme", "data-jp-theme-light", "theme", "class"] });
  const deaf = host.listen?.((given) => { take(given); refresh(); });

  setPair(pair);
  show(item);
  return () => {
    document.removeEventListener("visibilitychange", away);
    sized.disconnect();
    themed.disconnect();
    deaf?.();
  };
}

// ---- on the page of the book ----------------------------------------------------------------------------------------------
export async function start(page) {
  for (const box of page.querySelectorAll(".scp-explorer[data-static]:not([data-started])")) {
    box.setAttribute("data-started", "");
    const fallback = box.querySelector(".scp-explorer-fallback");
    if (typeof DecompressionStream === "undefined") {
      fallback.textContent = "This browser is too old for the explorer: it needs one of 2023 or later.";
      continue;
    }
    const bundle = await unpack(box.querySelector('script[type="text/plain"]').textContent);
    const slot = `scprimer-explorer-${bundle.key}`;
    const kept = remembered(slot);
    const host = {
      rows: kept.rows ?? [], rater: kept.rater ?? box.dataset.rater, seed: Number(box.dataset.seed),
      keep(rows, rater) {
        try { localStorage.setItem(slot, JSON.stringify({ rows, rater })); return ""; }
        catch { return "This browser keeps nothing for this page: save the sheet before you leave."; }
      },
    };
    const place = document.createElement("div");
    fallback.replaceWith(place);
    draw(place, bundle, host);
  }
}

function remembered(slot) {
  try { return JSON.parse(localStorage.getItem(slot)) ?? {}; } catch { return {}; } // storage may be forbidden
}

// ---- as a widget in a notebook --------------------------------------------------------------------------------------------
async function render({ model, el }) {
  el.classList.add("scp-explorer");
  const place = document.createElement("div");
  el.append(place);
  // The notebook has shortcuts of one letter (twice d deletes a cell): keys that are meant for the explorer stay in it. The
  // attribute says the same to versions of JupyterLab that listen before anybody else.
  place.setAttribute("data-lm-suppress-shortcuts", "true");
  place.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" && !event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
  });
  let own = false; // what this view sends comes back as a change, too
  const state = () => ({ rows: model.get("rows"), rater: model.get("rater") });
  const bundle = await unpack(model.get("packed"));
  return draw(place, bundle, {
    ...state(), seed: model.get("seed"),
    keep(rows, rater) {
      own = true;
      model.set("rows", rows);
      model.set("rater", rater);
      own = false;
      model.save_changes();
      return "";
    },
    listen(callback) {
      const changed = () => { if (!own) callback(state()); };
      model.on("change:rows", changed);
      model.on("change:rater", changed);
      return () => { model.off("change:rows", changed); model.off("change:rater", changed); };
    },
  });
}

export default { render };
