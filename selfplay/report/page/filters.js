// Which sites are shown: those with a candidate that meets every choice, and the words searched for anywhere.
const COLUMNS = { outcome: "Outcome", model: "Model", temperature: "Temperature", rule: "Rule" };
const chosen = { labels: new Set(), turns: {}, groups: {}, query: "" };
let shown = []; // numbers of the sites in the list
let matching; // of each turn: whether it meets the choices
let hits = null; // of each site: whether the words were found; null without a search
let searching = 0;

function codesOf(column) { return index.names[column] ?? []; }

function buildFilters() {
  const counts = new Map();
  for (const code of index.turns.label ?? []) counts.set(code, (counts.get(code) ?? 0) + 1);
  const order = Object.keys(options.labels).reverse();
  for (const name of codesOf("label").toSorted((a, b) => order.indexOf(a) - order.indexOf(b))) {
    const code = codesOf("label").indexOf(name);
    const box = element("input");
    box.type = "checkbox";
    box.value = name;
    box.onchange = () => { if (box.checked) chosen.labels.add(code); else chosen.labels.delete(code); refilter(); };
    const said = options.labels[name] ?? name;
    const label = element("label", "", box, said, element("span", "count", counts.get(code).toLocaleString("en")));
    byId("labels").append(label);
  }
  byId("labels").hidden = codesOf("label").length < 2;
  for (const [column, says] of Object.entries(COLUMNS)) addSelect(column, says, "turns");
  for (const column of Object.keys(index.sites.groups)) addSelect(column, column, "groups");
}

function addSelect(column, says, kind) {
  const names = codesOf(column);
  if (names.length < (column === "rule" ? 1 : 2)) return;
  const select = element("select", "", new Option("any", ""));
  select.dataset.column = column;
  names.map((name, code) => [name, code]).sort((a, b) => a[0].localeCompare(b[0], "en", { numeric: true }))
    .forEach(([name, code]) => select.append(new Option(name.replaceAll("_", " "), code)));
  select.onchange = () => {
    if (select.value === "") delete chosen[kind][column]; else chosen[kind][column] = Number(select.value);
    refilter();
  };
  byId("selects").append(element("label", "field", says, select));
}

// Choices by name, as a link gives them.
function choose(given) {
  resetFilters();
  for (const [column, name] of given) {
    const code = codesOf(column).indexOf(name);
    if (code < 0) continue;
    if (column === "label") {
      chosen.labels.add(code);
      for (const box of byId("labels").querySelectorAll("input")) if (box.value === name) box.checked = true;
    }
    const select = [...byId("selects").querySelectorAll("select")].find((one) => one.dataset.column === column);
    if (select) { select.value = code; (column in COLUMNS ? chosen.turns : chosen.groups)[column] = code; }
  }
}

function resetFilters() {
  byId("find").reset();
  Object.assign(chosen, { labels: new Set(), turns: {}, groups: {}, query: "" });
  hits = null;
  searching += 1;
}

function filtered() { return chosen.labels.size + Object.keys(chosen.turns).length + Object.keys(chosen.groups).length > 0; }

function refilter(stay = true) {
  const turnChoices = Object.entries(chosen.turns).map(([column, code]) => [index.turns[column], code]);
  const siteChoices = Object.entries(chosen.groups).map(([column, code]) => [index.sites.groups[column], code]);
  const labels = index.turns.label ?? [];
  const narrowed = chosen.labels.size + turnChoices.length > 0;
  const here = shown[place];
  matching = new Uint8Array(labels.length);
  shown = [];
  let turns = 0;
  for (let site = 0; site < index.sites.ids.length; site++) {
    let count = 0;
    for (let turn = firstTurn[site]; turn < firstTurn[site + 1]; turn++) {
      if (chosen.labels.size && !chosen.labels.has(labels[turn])) continue;
      if (!turnChoices.every(([column, code]) => column[turn] === code)) continue;
      matching[turn] = 1;
      count += 1;
    }
    if (narrowed && !count) continue;
    if (hits && !hits[site]) continue;
    if (!siteChoices.every(([column, code]) => column[site] === code)) continue;
    shown.push(site);
    turns += count;
  }
  const say = (count) => count.toLocaleString("en");
  byId("found").textContent = `${say(shown.length)} of ${say(index.sites.ids.length)} sites, ${say(turns)} turns`;
  byId("clear").hidden = !filtered() && !chosen.query;
  const at = shown.indexOf(here);
  drawList();
  goTo(stay && at >= 0 ? at : 0, stay && at >= 0);
}

async function search(query) {
  const mine = ++searching;
  chosen.query = query;
  if (!query) { hits = null; refilter(); return; }
  const wanted = query.toLowerCase();
  const found = new Uint8Array(index.sites.ids.length);
  const holds = (text) => text?.toLowerCase().includes(wanted);
  for (let number = 0; number < index.starts.length; number++) {
    // Not by `chunk`: a search must not throw out what is being looked at.
    const sites = await packedChunk(number).then(unpacked);
    if (mine !== searching) return; // other words by now
    sites.forEach((site, at) => {
      found[index.starts[number] + at] = holds(site.id) || site.messages.some((message) => holds(message.text)) ||
        site.turns.some((turn) => holds(turn.turn));
    });
    if (number % 16 === 15) byId("found").textContent = `searching … ${Math.round(100 * number / index.starts.length)}%`;
  }
  hits = found;
  refilter();
}
