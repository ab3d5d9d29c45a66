// One site: its context, and every candidate with what was said of it. Evidence is marked in both.
let looked = null; // the site that is looked at: its number, contents, active candidate
const LEAST_IN_CONTEXT = 4; // shorter quotes stand everywhere by chance

async function showSite(number, keep) {
  let site;
  try {
    site = await siteAt(number);
  } catch (error) {
    byId("site").replaceChildren(element("p", "fault", `This conversation cannot be shown: ${error.message}`));
    return;
  }
  if (shown[place] !== number) return; // moved on meanwhile
  const first = firstTurn[number];
  const wanted = site.turns.findIndex((_, at) => matching[first + at]);
  const active = keep && looked?.number === number ? looked.active : Math.max(0, wanted);
  looked = { number, site, active };
  const candidates = element("section", "", element("h3", "", options.cleaned ? "the user's turn" : said(site.turns.length, "candidate")));
  candidates.id = "candidates";
  candidates.append(...site.turns.map((turn, at) => candidate(turn, at, filtered() && !matching[first + at])));
  const context = element("section", "");
  context.id = "context";
  context.setAttribute("aria-label", "Conversation so far");
  byId("site").replaceChildren(siteHead(number, site), context, candidates);
  activate(active, false);
  remember();
}

function showNothing() {
  looked = null;
  byId("site").replaceChildren(element("p", "faint", "No conversation meets all of these."));
}

function siteHead(number, site) {
  const head = element("header", "sitehead", element("h2", "", ...plainNodes(site.id)));
  head.append(element("span", "faint", `${(place + 1).toLocaleString("en")} of ${shown.length.toLocaleString("en")}`));
  const told = Object.entries(site.extra);
  if (told.length) {
    const list = element("dl", "faint");
    for (const [name, value] of told) list.append(element("dt", "", ...plainNodes(name)), element("dd", "text", ...plainNodes(value)));
    head.append(element("details", "faint", element("summary", "", said(told.length, "more column")), list));
  }
  return head;
}

function said(count, what) { return `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`; }

function candidate(turn, at, other) {
  const facts = element("div", "facts");
  if (turn.outcome === "chosen") facts.append(element("span", "badge chosen", `★ ${options.chosen}`));
  if (turn.label) {
    const passed = turn.label === "follow_up";
    facts.append(element("span", passed ? "badge good" : "badge", `${passed ? "✓" : "✕"} ${options.labels[turn.label] ?? turn.label}`));
  }
  if (turn.groundedness !== undefined) facts.append(score(turn.groundedness));
  if (turn.p_genuine !== undefined) facts.append(element("span", "", `p genuine ${turn.p_genuine.toFixed(2)}`));
  if (turn.rank !== undefined) facts.append(element("span", "", `rank ${turn.rank}`));
  if (!["chosen", "not judged"].includes(turn.outcome)) facts.append(element("span", "", turn.outcome.replaceAll("_", " ")));
  const drawn = [turn.temperature, turn.sample === undefined || options.cleaned ? null : `sample ${turn.sample}`, turn.model]
    .filter((_, i) => i === 1 || codesOf(["temperature", "", "model"][i]).length > 1); // else the overview says it once
  facts.append(element("span", "", ...plainNodes(drawn.filter(Boolean).join(" · "))));
  if (turn.finish_reason === "length") facts.append(element("span", "fault", "✂ cut at the token limit"));
  const box = element("div", other ? "candidate other" : "candidate", facts, element("div", "turn"));
  if (turn.rule) box.append(element("div", "why text", element("strong", "", ...plainNodes(turn.rule)), turn.evidence ? " — " : "", ...plainNodes(turn.evidence ?? "")));
  if (other) facts.append(element("span", "", "outside the filter"));
  box.onclick = () => { if (looked.active !== at) activate(at, false); };
  return box;
}

function score(value) {
  const meter = element("meter");
  meter.value = value;
  meter.title = `groundedness ${value}`;
  meter.setAttribute("aria-hidden", "true");
  return element("span", "", meter, ` groundedness ${value.toFixed(2)}`);
}

function hitsIn(text) { return spansOf(text, chosen.query).map(([from, to]) => [from, to, "hit", "searched for"]); }

// Makes a candidate the one that keys act on, and marks its evidence in the context too.
function activate(at, scroll = true) {
  const { site } = looked;
  if (at < 0 || at >= Math.max(1, site.turns.length)) return;
  looked.active = at;
  const evidence = (text, words, title) => spansOf(text, words).map(([from, to]) => [from, to, "evidence", title]);
  const boxes = byId("candidates").querySelectorAll(".candidate");
  boxes.forEach((box, i) => {
    const { turn, quote, rule } = site.turns[i];
    box.classList.toggle("active", i === at);
    if (i === at) box.setAttribute("aria-current", "true"); else box.removeAttribute("aria-current");
    box.querySelector(".turn").replaceChildren(
      turn ? textBox(turn, [...evidence(turn, quote, rule), ...hitsIn(turn)]) : element("em", "faint", "(empty)"));
  });
  if (scroll) boxes[at]?.scrollIntoView({ block: "nearest" });
  const { quote: words, rule: fired } = site.turns[at] ?? {};
  const context = byId("context");
  const before = looked.context === site ? context.scrollTop : null;
  context.replaceChildren(...site.messages.map((message, i) => {
    const title = `also in the candidate: ${fired}`;
    const spans = words && words.length >= LEAST_IN_CONTEXT && message.role !== "system" ? evidence(message.text, words, title) : [];
    const box = element("div", `message ${message.role === "assistant" ? "assistant" : ""}`,
      element("div", "role", ...plainNodes(message.role)), textBox(message.text, [...spans, ...hitsIn(message.text)]));
    if (i === site.messages.length - 1) box.id = "answer";
    return box;
  }));
  if (site.next && !options.cleaned) {
    context.append(element("details", "", element("summary", "", "what the user really said next"), textBox(site.next)));
  }
  looked.context = site;
  const mark = context.querySelector("mark.evidence");
  if (before !== null) context.scrollTop = before;
  else context.scrollTop = Math.max(0, byId("answer").offsetTop - context.offsetTop - 8);
  mark?.scrollIntoView({ block: "nearest" });
}
