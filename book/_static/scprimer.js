// Tables that can be sorted and filtered, words that explain themselves, figures that one can enlarge, and the address of the
// reader's own JupyterHub. Everything can be read without it.
"use strict";

function plain(cell) {
  return cell.dataset.value ?? cell.textContent.trim();
}

function compare(a, b) {
  const x = plain(a), y = plain(b), p = parseFloat(x), q = parseFloat(y);
  if (x === "" || y === "") return (x === "") - (y === ""); // what was not measured goes last
  return Number.isNaN(p) || Number.isNaN(q) ? x.localeCompare(y) : p - q;
}

function sortBy(table, column, direction) {
  const sign = direction === "descending" ? -1 : 1;
  const rows = [...table.tBodies[0].rows];
  rows.sort((r, s) => {
    const a = r.cells[column], b = s.cells[column];
    return plain(a) === "" || plain(b) === "" ? compare(a, b) : sign * compare(a, b);
  });
  table.tBodies[0].append(...rows);
  [...table.tHead.rows[0].cells].forEach((th, i) => {
    if (i === column) th.setAttribute("aria-sort", direction);
    else th.removeAttribute("aria-sort");
  });
}

function element(name, attributes = {}, text = "") {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function equip(table) {
  const heads = [...table.tHead.rows[0].cells], rows = [...table.tBodies[0].rows];
  const names = heads.map((th) => th.textContent.trim());
  const tools = element("div", { class: "scp-tools", role: "search" });
  const words = element("input", { type: "search", placeholder: "Filter", "aria-label": "Filter rows by words" });
  const count = element("output", { "aria-live": "polite" });
  const choices = [];
  tools.append(words);
  heads.forEach((th, i) => {
    const button = element("button", { type: "button" }, names[i]);
    button.addEventListener("click", () =>
      sortBy(table, i, th.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending"));
    th.replaceChildren(button);
    if (!th.hasAttribute("data-filter")) return;
    const values = [...new Set(rows.map((row) => plain(row.cells[i])))];
    if (values.length < 2) return;
    const choice = element("select", { "aria-label": names[i] });
    choice.append(element("option", { value: "" }, `${names[i]}: all`));
    for (const value of values) choice.append(element("option", { value }, value));
    choices.push([i, choice]);
    tools.append(choice);
  });
  const order = element("select", { class: "scp-sort", "aria-label": "Sort by" });
  order.append(element("option", { value: "" }, "Sort by"));
  names.forEach((name, i) => order.append(element("option", { value: i }, name)));
  order.addEventListener("change", () => order.value && sortBy(table, Number(order.value), "ascending"));
  tools.append(order, count);
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = wanted.every((word) => text.includes(word))
        && choices.every(([i, choice]) => !choice.value || plain(row.cells[i]) === choice.value);
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown === rows.length ? `${rows.length} rows` : `${shown} of ${rows.length} rows`;
  };
  words.addEventListener("input", filter);
  for (const [, choice] of choices) choice.addEventListener("change", filter);
  filter();
  table.closest(".scp-box").before(tools);
}

const HUB = "scprimer-hub";

function remembered() {
  try { return localStorage.getItem(HUB) || ""; } catch { return ""; } // storage may be forbidden
}

function hubAddress(text) {
  try {
    const url = new URL(text.includes("://") ? text : `https://${text}`);
    return /^https?:$/.test(url.protocol) ? url.href.replace(/\/(hub\/.*)?$/, "") : "";
  } catch { return ""; }
}

function gitPull(hub, search) {
  return `${hub}/hub/user-redirect/git-pull${search}`;
}

function equipHub(form) {
  const address = form.querySelector("input"), said = form.querySelector("output");
  const show = (hub) => {
    if (location.search.includes("urlpath=")) {
      const link = element("a", { href: gitPull(hub, location.search) }, "Open the chapter on your hub");
      said.replaceChildren("Remembered. ", link);
    } else said.textContent = "Remembered: JupyterHub under each chapter's rocket now opens the chapter there.";
  };
  address.value = remembered();
  if (address.value) show(address.value);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const hub = hubAddress(address.value.trim());
    if (!hub) { said.textContent = "This is no web address: it should look like https://hub.my-university.example"; return; }
    try { localStorage.setItem(HUB, hub); } catch { /* the link below still works */ }
    address.value = hub;
    show(hub);
  });
}

// ---- words of the glossary ----
// Shown on hover and on focus; stays while the pointer is on the word or on the explanation; Escape takes it away (WCAG 1.4.13).
function explainTerms(links) {
  const tip = element("div", { class: "scp-tip", role: "tooltip", hidden: "" });
  document.body.append(tip);
  let shownFor = null, timer = 0, touched = false;
  const hide = () => { clearTimeout(timer); tip.hidden = true; shownFor = null; };
  const hideSoon = () => { clearTimeout(timer); timer = setTimeout(hide, 250); };
  const show = (link, about) => {
    clearTimeout(timer);
    tip.innerHTML = about.innerHTML;
    tip.hidden = false;
    shownFor = link;
    const [word] = link.getClientRects(), edge = document.documentElement.clientWidth - 12;
    const left = Math.max(12, Math.min(word.left, edge - tip.offsetWidth));
    const below = word.bottom + 4 + tip.offsetHeight < innerHeight || word.top < tip.offsetHeight + 4;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${scrollY + (below ? word.bottom + 4 : word.top - tip.offsetHeight - 4)}px`;
  };
  for (const link of links) {
    const about = document.getElementById(`about-${link.hash.slice(1)}`);
    if (!about) continue;
    link.setAttribute("aria-describedby", about.id);
    link.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") show(link, about); });
    link.addEventListener("pointerleave", hideSoon);
    link.addEventListener("focus", () => show(link, about));
    link.addEventListener("blur", hideSoon);
    link.addEventListener("pointerdown", (event) => { touched = event.pointerType === "touch" && shownFor !== link; });
    // The first touch explains the word, the second follows the link.
    link.addEventListener("click", (event) => { if (touched) { event.preventDefault(); show(link, about); touched = false; } });
  }
  tip.addEventListener("pointerenter", () => clearTimeout(timer));
  tip.addEventListener("pointerleave", hideSoon);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.addEventListener("pointerdown", (event) => { if (!tip.contains(event.target) && event.target !== shownFor) hide(); });
}

// ---- figures ----
function enlargeFigures(images) {
  const dialog = element("dialog", { class: "scp-dialog", "aria-label": "Enlarged figure" });
  const close = element("button", { type: "button", class: "scp-close" }, "Close");
  const stage = element("div", { class: "scp-stage", tabindex: "0", role: "region", "aria-label": "Figure" });
  const words = element("p");
  dialog.append(close, stage, words);
  document.body.append(dialog);
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => stage.replaceChildren());
  for (const image of images) {
    const button = element("button", { type: "button", class: "scp-enlarge" }, "Enlarge");
    if (image.alt) button.setAttribute("aria-label", `Enlarge the figure: ${image.alt}`);
    const open = () => {
      stage.replaceChildren(element("img", { src: image.src, alt: image.alt }));
      words.textContent = image.closest("figure")?.querySelector(".caption-text")?.textContent ?? "";
      button.focus(); // where the focus goes back to
      dialog.showModal();
      close.focus();
    };
    button.addEventListener("click", open);
    image.addEventListener("click", open);
    image.classList.add("scp-figure");
    image.after(button);
  }
}

// Boxes that scroll can be scrolled with the keyboard.
function reachScrollers() {
  document.querySelectorAll(".bd-article :is(.scp-formula, pre, .output, .text_html, .pst-scrollable-table-container, figure)").forEach((box) => {
    const scrolls = box.scrollWidth > box.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(box).overflowX);
    if (scrolls && !box.querySelector("a, button, [tabindex]")) box.tabIndex = 0;
    else if (box.tabIndex === 0) box.removeAttribute("tabindex");
  });
}

// On paper everything that is folded lies open, except solutions.
function unfoldForPrint() {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll(".bd-article details:not([open])")].filter((d) => !d.closest(".tag_exercise-solution"));
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => { for (const details of opened) details.open = false; });
}

document.querySelectorAll("table[data-sortable]").forEach(equip);
explainTerms(document.querySelectorAll("a.scp-term"));
enlargeFigures(document.querySelectorAll(".bd-article :is(figure, .cell_output) img"));
reachScrollers();
addEventListener("load", reachScrollers);
addEventListener("resize", reachScrollers);
unfoldForPrint();
document.querySelectorAll("form[data-hub]").forEach(equipHub);
if (remembered()) {
  document.querySelectorAll("a.btn-launch-hub").forEach((link) => {
    link.href = gitPull(remembered(), new URL(link.href).search);
  });
}
// A row that the address names may lie under a filter or above the fold once tables are equipped.
if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
