// What the page holds: an index of all sites, and chunks of them that are unpacked when looked at.
const byId = (name) => document.getElementById(name);
const options = JSON.parse(byId("options").textContent);

function element(tag, name, ...inside) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...inside);
  return made;
}

function bytes(base64) {
  const binary = atob(base64);
  const found = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) found[i] = binary.charCodeAt(i);
  return found;
}

async function unpacked(packed) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

// A server hands out chunks one by one; a file holds them all.
async function packedChunk(number) {
  if (!options.served) return bytes(byId(`chunk-${number}`).textContent);
  const answer = await fetch(`chunk/${number}`);
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return answer.arrayBuffer();
}

const KEPT_CHUNKS = 16;
const kept = new Map();

function chunk(number) {
  const found = kept.get(number) ?? packedChunk(number).then(unpacked);
  kept.delete(number); // what was looked at last stands last
  kept.set(number, found);
  if (kept.size > KEPT_CHUNKS) kept.delete(kept.keys().next().value);
  return found;
}

let index;
let firstTurn; // of each site: where its turns begin in the columns of the index

async function openIndex() {
  index = await unpacked(bytes(byId("index").textContent));
  firstTurn = new Uint32Array(index.sites.ids.length + 1);
  index.sites.counts.forEach((count, site) => { firstTurn[site + 1] = firstTurn[site] + count; });
}

function chunkOf(site) {
  let low = 0;
  let high = index.starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (index.starts[middle] <= site) low = middle; else high = middle - 1;
  }
  return low;
}

async function siteAt(site) {
  const number = chunkOf(site);
  return (await chunk(number))[site - index.starts[number]];
}
