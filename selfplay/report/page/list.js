// The list of sites: only the rows in sight are in the page.
const ROW = 58;
let place = -1; // in `shown`, of the site that is looked at
const drawn = new Map();

function drawList() {
  for (const row of drawn.values()) row.remove();
  drawn.clear();
  byId("rows").style.height = `${shown.length * ROW}px`;
  drawRows();
}

function drawRows() {
  const list = byId("list");
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 5);
  for (const [at, row] of drawn) if (at < first || at >= last) { row.remove(); drawn.delete(at); }
  for (let at = first; at < last; at++) {
    if (drawn.has(at)) continue;
    const row = rowOf(at);
    drawn.set(at, row);
    byId("rows").append(row);
  }
}

function rowOf(at) {
  const site = shown[at];
  const title = element("span", "title", ...plainNodes(index.sites.titles[site] || "(no user message)"));
  title.dir = "auto";
  const row = element("div", "row", title, element("span", "note", noteOf(site)));
  row.id = `row-${at}`;
  row.style.top = `${at * ROW}px`;
  row.setAttribute("role", "option");
  row.setAttribute("aria-selected", String(at === place));
  row.setAttribute("aria-setsize", shown.length);
  row.setAttribute("aria-posinset", at + 1);
  row.onclick = () => goTo(at);
  return row;
}

function noteOf(site) {
  const outcomes = codesOf("outcome");
  const labels = codesOf("label");
  let passed = 0;
  let picked = 0;
  for (let turn = firstTurn[site]; turn < firstTurn[site + 1]; turn++) {
    if (outcomes[index.turns.outcome[turn]] === "chosen") picked += 1;
    if (labels[index.turns.label[turn]] === "follow_up") passed += 1;
  }
  const star = picked ? `★ ${options.chosen}` : `– ${index.sites.counts[site] === 1 ? "not" : "none"} ${options.chosen}`;
  if (options.judged && index.sites.counts[site] === 1) {
    const label = labels[index.turns.label[firstTurn[site]]];
    return `${star} · ${options.labels[label] ?? label}`;
  }
  return options.judged ? `${star} · ${passed} of ${index.sites.counts[site]} passed` : `${index.sites.counts[site]} turns`;
}

// Looks at another site of the list; `keep`: it is the one in sight, drawn anew.
function goTo(at, keep = false) {
  if (at < 0 || at >= shown.length) {
    if (!shown.length) { place = -1; showNothing(); }
    return;
  }
  drawn.get(place)?.setAttribute("aria-selected", "false");
  place = at;
  const list = byId("list");
  const top = at * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  drawRows();
  drawn.get(at)?.setAttribute("aria-selected", "true");
  list.setAttribute("aria-activedescendant", `row-${at}`);
  showSite(shown[at], keep);
}
