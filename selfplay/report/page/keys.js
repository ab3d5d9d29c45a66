// Keys, the two pages, and what the address says.
const KEYS = [
  ["j ↓", "next conversation", () => goTo(place + 1)],
  ["k ↑", "previous conversation", () => goTo(place - 1)],
  ["n →", "next candidate", () => activate(looked.active + 1)],
  ["p ←", "previous candidate", () => activate(looked.active - 1)],
  ["g", "first conversation", () => goTo(0)],
  ["G", "last conversation", () => goTo(shown.length - 1)],
  ["/", "search in all texts", () => { byId("search").focus(); byId("search").select(); }],
  ["f", "filters", () => { byId("filters").open = true; (byId("labels").querySelector("input") ?? byId("search")).focus(); }],
  ["x", "clear search and filters", () => { resetFilters(); refilter(); }],
  ["o", "overview", () => turnTo("overview")],
  ["b", "conversations", () => turnTo("browse")],
  ["?", "this list", () => byId("help").showModal()],
];
const ARROWS = { "↓": "ArrowDown", "↑": "ArrowUp", "→": "ArrowRight", "←": "ArrowLeft" };
const acts = new Map(KEYS.flatMap(([keys, , act]) => keys.split(" ").map((key) => [ARROWS[key] ?? key, act])));
const EVERYWHERE = new Set(["o", "b", "?", "/"]);

function buildHelp() {
  for (const [keys, says] of KEYS) {
    const shownKeys = keys.split(" ").flatMap((key) => [element("kbd", "", key), " "]);
    byId("keys").append(element("dt", "", ...shownKeys), element("dd", "", says));
  }
  byId("help-button").onclick = () => byId("help").showModal();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  const typing = event.target.closest?.("input[type=search], select");
  if (event.key === "Escape") {
    if (event.target === byId("search")) byId("list").focus();
    else if (event.target.blur) event.target.blur();
    return;
  }
  if (typing) return;
  const browsing = !byId("browse").hidden;
  const act = acts.get(event.key);
  if (!act || (!browsing && !EVERYWHERE.has(event.key))) return;
  if (!browsing && event.key === "/") turnTo("browse");
  if (browsing && !looked && "np".includes(event.key)) return;
  act();
  event.preventDefault();
}

function turnTo(page) {
  for (const name of ["overview", "browse"]) byId(name).hidden = name !== page;
  for (const link of document.querySelectorAll(".top nav a")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (page === "browse") { drawRows(); if (shown.length && place < 0) goTo(0); remember(); byId("list").focus(); }
  else history.replaceState(null, "", "#overview");
}

// The address names the site that is looked at, so that it can be handed on.
function remember() {
  if (byId("browse").hidden || !looked) return;
  history.replaceState(null, "", `#browse&${new URLSearchParams({ site: looked.site.id })}`);
}

function follow() {
  const [page, ...rest] = location.hash.slice(1).split("&");
  if (page !== "browse") {
    const section = document.getElementById(page);
    if (!byId("browse").hidden || page === "overview") turnTo("overview");
    if (page && page !== "overview") section?.scrollIntoView();
    return;
  }
  const given = [...new URLSearchParams(rest.join("&"))];
  const site = given.find(([name]) => name === "site")?.[1];
  byId("overview").hidden = true;
  byId("browse").hidden = false;
  if (given.some(([name]) => name !== "site")) { choose(given); refilter(false); }
  else if (site !== undefined && looked?.site.id !== site) {
    const at = shown.indexOf(index.sites.ids.indexOf(site));
    if (at >= 0) goTo(at);
  }
  turnTo("browse");
}
