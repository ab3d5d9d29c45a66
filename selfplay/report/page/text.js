// Text of models and data as nodes: hidden characters are shown as what they are, and stretches are marked.

// Control, format and direction characters, odd separators, halves of surrogate pairs. Joiners stay: scripts need them.
const HIDDEN = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e" +
  "\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb\\u{e0000}-\\u{e007f}]|\\p{Cs}", "gu");

function plainNodes(text) {
  const nodes = [];
  let last = 0;
  for (const found of text.matchAll(HIDDEN)) {
    if (found.index > last) nodes.push(document.createTextNode(text.slice(last, found.index)));
    const code = `U+${found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    const shown = element("span", "hidden-char", code);
    shown.title = `hidden character ${code}`;
    nodes.push(shown);
    last = found.index + found[0].length;
  }
  if (last < text.length) nodes.push(document.createTextNode(text.slice(last)));
  return nodes;
}

// Where `words` stand in `text`: as they are, else with other case and white space.
function spansOf(text, words, everywhere = true) {
  if (!words) return [];
  const loose = words.trim().split(/\s+/u).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("\\s+");
  for (const pattern of [new RegExp(loose, "gu"), new RegExp(loose, "giu")]) {
    const found = [...text.matchAll(pattern)].map((one) => [one.index, one.index + one[0].length]);
    const whole = found.filter(([from, to]) => to > from);
    if (whole.length) return everywhere ? whole : whole.slice(0, 1);
  }
  return [];
}

// `spans`: [from, to, class name, title]; where they overlap the first wins.
function markedNodes(text, spans) {
  const nodes = [];
  let last = 0;
  for (const [from, to, name, title] of [...spans].sort((a, b) => a[0] - b[0])) {
    if (from < last) continue;
    nodes.push(...plainNodes(text.slice(last, from)));
    const mark = element("mark", name, ...plainNodes(text.slice(from, to)));
    if (title) mark.title = title;
    nodes.push(mark);
    last = to;
  }
  return [...nodes, ...plainNodes(text.slice(last))];
}

function textBox(text, spans = []) {
  const box = element("div", "text", ...markedNodes(text, spans));
  box.dir = "auto";
  return box;
}
