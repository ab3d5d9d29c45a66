// Starts the page.
let pause;

async function start() {
  buildHelp();
  if (!index) await openIndex();
  buildFilters();
  refilter(false);
  byId("list").addEventListener("scroll", drawRows, { passive: true });
  addEventListener("resize", drawRows);
  addEventListener("hashchange", follow);
  document.addEventListener("keydown", onKey);
  byId("find").onsubmit = (event) => { event.preventDefault(); search(byId("search").value.trim()); byId("list").focus(); };
  byId("clear").onclick = (event) => { event.preventDefault(); resetFilters(); refilter(); };
  byId("search").oninput = () => { clearTimeout(pause); pause = setTimeout(() => search(byId("search").value.trim()), 250); };
  for (const link of document.querySelectorAll(".top nav a")) {
    link.onclick = (event) => { event.preventDefault(); turnTo(link.dataset.page); };
  }
  if (location.hash) follow(); else turnTo("overview");
  document.documentElement.dataset.ready = "true";
}

start().catch((error) => {
  byId("site").replaceChildren(element("p", "fault", `This browser cannot show the conversations: ${error.message}`));
});
