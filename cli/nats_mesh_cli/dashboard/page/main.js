// The frame around the views: what stands above them, which one is shown, keys, colours.

const byId = (id) => document.getElementById(id);
const main = byId("main");
const filter = byId("filter");
let shown = null;

for (const view of Object.values(views)) view.make();

function place() {
  const [, view = "graph", name = ""] = location.hash.split("/");
  if (view === "services" && name) {
    let found = name;
    try {
      found = decodeURIComponent(name);
    } catch {
      // An address that somebody typed: shown as it is.
    }
    return ["service", found];
  }
  return [Object.hasOwn(views, view) && view !== "service" ? view : "graph", ""];
}

function go() {
  const [key, name] = place();
  const view = views[key];
  if (name) view.open(name);
  if (shown !== view) {
    main.replaceChildren(view.element);
    shown = view;
    window.scrollTo(0, 0);
  }
  for (const link of document.querySelectorAll("nav a")) {
    set(link, "aria-current", link.dataset.view === key || (key === "service" && link.dataset.view === "services") ? "page" : null);
  }
  document.title = `${name || key} · nats-mesh`;
  draw();
}

function matches(name) {
  const wanted = filter.value.trim().toLowerCase();
  return !wanted || String(name).toLowerCase().includes(wanted);
}

function draw() {
  head();
  if (shown) shown.draw(matches);
}

// -- the head ------------------------------------------------------------------------------------------------

const TILES = {
  rate: "calls a second", success: "success", p99: "99th percentile", open: "breakers open", ejected: "ejected", services: "services", instances: "instances",
};
const tiles = {};
for (const [key, label] of Object.entries(TILES)) {
  tiles[key] = h("dd", { "data-tile": key }, h("span"));
  byId("tiles").append(h("div", {}, h("dt", {}, label), tiles[key]));
}
const whole = spark();
tiles.rate.append(whole);

function tile(key, value, kind = "") {
  text(tiles[key].firstChild, value);
  set(tiles[key], "class", kind || null);
}

function head() {
  const all = mesh();
  const since = Math.round((performance.now() - model.heard) / 1000);
  let trouble = "";
  if (model.lost) trouble = `✕ The dashboard's own server does not answer (for ${since} s). ${model.known ? "What is shown is as it was then. " : ""}It is tried again by itself.`;
  else if (model.known && !all.connected) trouble = `✕ The bus is away (for ${all.away_s} s): ${all.server || "no server"}. What is shown is as it was last; it comes back by itself.`;
  const banner = byId("banner");
  const told = trouble || (all.silent ? `✕ ${all.silent}` : "");
  text(banner, told);
  show(banner, Boolean(told));
  document.body.classList.toggle("stale", Boolean(trouble));
  if (!model.known) return;
  text(byId("namespace"), all.namespace);
  text(byId("server"), `${all.server}${all.tls ? " (TLS)" : ""}`);
  const up = all.connected && !model.lost;
  text(byId("bus"), up ? `● connected${all.rtt_ms === null ? "" : ` ${time(all.rtt_ms)}`}` : "✕ away");
  set(byId("bus"), "class", up ? "ok" : "bad");
  const followers = all.synced + all.stale + all.rejecting;
  const behind = all.stale + all.rejecting;
  text(byId("sync"), followers && !all.head ? "no policies on the bus" : followers ? `policies rev ${all.head} ${behind ? "▲" : "●"} ${all.synced}/${followers} in sync` : "no policies followed");
  set(byId("sync"), "class", !followers || !all.head ? "dim" : behind ? "warn" : "ok");
  tile("rate", rate(all.rate_per_s));
  drawSpark(whole, model.trends[""] || [], `calls a second over the last minute, now ${rate(all.rate_per_s)}`);
  tile("success", signed(all.success_level, percent(all.success)), all.success_level);
  tile("p99", time(all.p99_ms));
  tile("open", all.breakers_open ? `⊘ ${all.breakers_open}` : "0", all.breakers_open ? "bad" : "");
  tile("ejected", all.ejected ? `▲ ${all.ejected}` : "0", all.ejected ? "warn" : "");
  tile("services", all.services);
  tile("instances", all.instances);
}

// -- keys, motion, colours -------------------------------------------------------------------------------------

filter.addEventListener("input", () => {
  graph.zoom = null;
  draw();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === filter) {
    if (event.key === "Escape") {
      filter.value = "";
      filter.blur();
      draw();
    }
    return;
  }
  const view = { 1: "graph", 2: "services", 3: "policies", 4: "events" }[event.key];
  if (event.key === "/") {
    event.preventDefault();
    filter.focus();
  } else if (view) location.hash = `#/${view}`;
});

function remembered(key) {
  try {
    return localStorage.getItem(key) || "";
  } catch {
    return ""; // this browser keeps nothing; then every visit begins as the first
  }
}
function remember(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // As above.
  }
}

const dark = matchMedia("(prefers-color-scheme: dark)");
let theme = remembered("theme");
function colours() {
  const name = theme === "dark" || theme === "light" ? theme : dark.matches ? "dark" : "light";
  document.documentElement.dataset.theme = name;
  text(byId("theme"), `Theme: ${theme || "system"}`);
}
byId("theme").addEventListener("click", () => {
  theme = { "": "dark", dark: "light" }[theme] || "";
  remember("theme", theme);
  colours();
});
dark.addEventListener("change", colours);

const calm = matchMedia("(prefers-reduced-motion: reduce)");
let still = remembered("motion") === "off";
function motion() {
  const off = still || calm.matches;
  document.body.classList.toggle("nomotion", off);
  text(byId("motion"), off ? "Motion: off" : "Motion: on");
  set(byId("motion"), "aria-pressed", String(!off));
}
byId("motion").addEventListener("click", () => {
  still = !still;
  remember("motion", still ? "off" : "on");
  motion();
});
calm.addEventListener("change", motion);

colours();
motion();
window.addEventListener("hashchange", () => {
  go();
  main.focus({ preventScroll: true });
});
model.listeners.push(draw);
go();
connect();
