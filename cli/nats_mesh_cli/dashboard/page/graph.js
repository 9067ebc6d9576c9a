// The picture of who calls whom. Places come from the server, so that every browser shows the same one.

const BOX = { width: 184, height: 62, dx: 340, dy: 104 };
const DENSE = 120; // so many edges and more show their figures only where one looks

const graph = {
  zoom: null, // [x, y, width, height]; null: everything
  edges: s("g"),
  nodes: s("g"),
  hot: "",
  height: "", // of the window
  seen: null, // those that a filter leaves, with their neighbours; null: everybody
};
graph.svg = s("svg", { class: "graph", tabindex: "0", role: "group", "aria-label": "Service graph. Tab goes from service to service; plus, minus and arrows move the view, 0 shows all." },
  s("defs", {}, s("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto" }, s("path", { d: "M0 0L8 4L0 8z" }))),
  graph.edges, graph.nodes);
graph.none = h("p", { class: "empty" }, "No service is there yet. Start one: nats-mesh run MODULE:SERVICE, or see nats-mesh demo.");
graph.tools = h("div", { class: "tools" },
  tool("+", "Closer", () => zoomBy(0.75)), tool("−", "Farther", () => zoomBy(1 / 0.75)), tool("0", "Show everything", () => { graph.zoom = null; frame(); }));
graph.box = h("div", { class: "graphbox" }, graph.svg, graph.none, graph.tools,
  h("div", { class: "legend" },
    h("span", {}, "on an edge: calls a second · 99th percentile"),
    h("span", { class: "bad" }, "✕ share of errors"),
    h("span", { class: "bad" }, "⊘ OPEN: the caller's breaker refuses"),
    h("span", { class: "ok" }, "lock: encrypted, or guarded by an access policy"),
    ...["ok", "degraded", "failing", "idle", "client"].map((word) => h("span", {}, `${stateOf(word)[0]} ${stateOf(word)[1]}`))));
graph.table = new Table("Edges", [
  { head: "Caller", fill: (td, e) => linkTo(td, e.source), sort: (e) => e.source },
  { head: "Service", fill: (td, e) => linkTo(td, e.service), sort: (e) => e.service },
  { head: "Calls/s", num: true, cell: (e) => rate(e.rate_per_s), sort: (e) => e.rate_per_s },
  { head: "Attempts/s", num: true, cell: (e) => rate(e.attempts_per_s), sort: (e) => e.attempts_per_s },
  { head: "Success", num: true, cell: (e) => signed(e.success_level, percent(e.success)), kind: (e) => e.success_level, sort: errorShare },
  { head: "p50", num: true, cell: (e) => time(e.p50_ms), sort: (e) => e.p50_ms || 0 },
  { head: "p99", num: true, cell: (e) => time(e.p99_ms), sort: (e) => e.p99_ms || 0 },
  { head: "Breaker", short: true, cell: (e) => (e.breaker ? `⊘ ${e.breaker}` : "closed"), kind: (e) => e.breakers_level || "dim", sort: (e) => e.breaker },
  { head: "Locked by", cell: (e) => e.locks.join(", ") || NOTHING, sort: (e) => e.locks.length },
  { head: "Last error", cell: (e) => e.last_error || "" },
], (e) => `${e.source}>${e.service}`, { sort: 4, empty: "nobody has called anybody yet" });
graph.element = h("div", {}, graph.box, graph.table.element);

function tool(sign, label, act) {
  const button = h("button", { type: "button", title: label, "aria-label": label }, sign);
  button.addEventListener("click", act);
  return button;
}

// -- moving about ---------------------------------------------------------------------------------------

function extent() {
  const places = rows("services").filter((each) => !graph.seen || graph.seen.has(each.name));
  if (!places.length) return [-450, -BOX.dy, 900, 2 * BOX.dy];
  const x = places.map((each) => each.x * BOX.dx);
  const y = places.map((each) => each.y * BOX.dy);
  const [left, top] = [Math.min(...x) - BOX.width * 0.75, Math.min(...y) - BOX.height * 1.3];
  return [left, top, Math.max(...x) + BOX.width * 0.75 - left, Math.max(...y) + BOX.height * 1.3 - top];
}
function frame() {
  const [x, y, width, height] = graph.zoom || extent();
  const least = graph.zoom ? 0 : 900; // few boxes do not fill the screen
  const grow = Math.max(0, least - width) / 2;
  // As high as the picture needs, within what the screen has.
  const high = graph.zoom ? graph.height : `clamp(260px, ${((100 * height) / Math.max(width, least)).toFixed(1)}vw, 68vh)`;
  if (graph.svg.style.height !== high) graph.svg.style.height = high;
  set(graph.svg, "viewBox", [x - grow, y, width + 2 * grow, height].map((each) => each.toFixed(1)).join(" "));
}
// The window keeps its size while one moves about in it.
function keepHeight() {
  if (!graph.zoom) graph.height = graph.svg.style.height;
}
function zoomBy(factor, cx = 0.5, cy = 0.5) {
  keepHeight();
  const [x, y, width, height] = graph.zoom || extent();
  const w = Math.min(Math.max(width * factor, 300), 40000);
  const k = w / width;
  graph.zoom = [x + width * (1 - k) * cx, y + height * (1 - k) * cy, w, height * k];
  frame();
}
function pan(dx, dy) {
  keepHeight();
  const [x, y, width, height] = graph.zoom || extent();
  graph.zoom = [x + dx * width, y + dy * height, width, height];
  frame();
}
graph.svg.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return; // the page scrolls as pages do
  event.preventDefault();
  const box = graph.svg.getBoundingClientRect();
  zoomBy(event.deltaY > 0 ? 1.15 : 1 / 1.15, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
}, { passive: false });
graph.svg.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || event.target.closest("a")) return;
  graph.svg.setPointerCapture(event.pointerId);
  graph.drag = [event.clientX, event.clientY];
});
graph.svg.addEventListener("pointermove", (event) => {
  if (!graph.drag) return;
  const box = graph.svg.getBoundingClientRect();
  pan((graph.drag[0] - event.clientX) / box.width, (graph.drag[1] - event.clientY) / box.height);
  graph.drag = [event.clientX, event.clientY];
});
for (const kind of ["pointerup", "pointercancel"]) graph.svg.addEventListener(kind, () => { graph.drag = null; });
graph.svg.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const act = {
    "+": () => zoomBy(0.8), "=": () => zoomBy(0.8), "-": () => zoomBy(1.25), 0: () => { graph.zoom = null; frame(); },
    ArrowLeft: () => pan(-0.1, 0), ArrowRight: () => pan(0.1, 0), ArrowUp: () => pan(0, -0.1), ArrowDown: () => pan(0, 0.1),
  }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

// -- drawing ----------------------------------------------------------------------------------------------

function drawGraph(matches) {
  const services = rows("services");
  const edges = rows("edges").filter((edge) => model.document.services[edge.source] && model.document.services[edge.service]);
  show(graph.none, !services.length && model.known);
  graph.svg.style.display = services.length ? "" : "none";
  show(graph.tools, services.length > 0);
  graph.seen = filter.value.trim() ? neighbourhood(services, edges, matches) : null;
  frame();
  graph.svg.classList.toggle("dense", (graph.seen ? graph.seen.size : edges.length) > DENSE);
  keyed(graph.nodes, services, (each) => each.name, makeNode, (node, each) => drawNode(node, each, !graph.seen || graph.seen.has(each.name)));
  keyed(graph.edges, edges, (each) => `${each.source}>${each.service}`, makeEdge,
    (node, each) => drawEdge(node, each, matches(each.source) || matches(each.service)));
  heat();
  graph.table.update(edges.filter((edge) => matches(edge.source) || matches(edge.service)));
}

function neighbourhood(services, edges, matches) {
  const found = new Set(services.map((each) => each.name).filter(matches));
  const near = edges.filter((edge) => found.has(edge.source) || found.has(edge.service)).flatMap((edge) => [edge.source, edge.service]);
  return new Set([...found, ...near]);
}

function makeNode(each) {
  const { width, height } = BOX;
  const left = -width / 2 + 12;
  const node = s("a", { class: "node", "data-service": each.name, href: serviceLink(each.name) },
    s("title"), s("rect", { x: -width / 2, y: -height / 2, width, height, rx: 9 }),
    s("text", { class: "name", x: left, y: -10 }), s("text", { class: "mark", x: left, y: 7 }),
    s("text", { class: "sub", x: left, y: 23 }), s("text", { class: "badge", x: width / 2 - 4, y: -height / 2 - 6 }));
  const look = (name) => () => { graph.hot = name; heat(); };
  for (const kind of ["pointerenter", "focus"]) node.addEventListener(kind, look(each.name));
  for (const kind of ["pointerleave", "blur"]) node.addEventListener(kind, look(""));
  return node;
}

function drawNode(node, each, on) {
  const [sign, word] = stateOf(each.state);
  const service = each.kind === "service";
  const calls = `${rate(each.rate_per_s)}/s · ${percent(each.success)} · ${time(each.p99_ms)}`;
  const open = breakers(each.breakers);
  const many = service ? ` · ${each.ready}/${each.instances}` : "";
  const [title, , name, mark, sub, badge] = node.childNodes;
  set(node, "transform", `translate(${each.x * BOX.dx} ${each.y * BOX.dy})`);
  set(node, "class", `node ${each.state}${on ? "" : " off"}`);
  text(name, each.name.length > 22 ? `${each.name.slice(0, 21)}…` : each.name);
  text(mark, `${sign} ${word}${many}`);
  text(badge, open ? `⊘ ${open}` : "");
  text(sub, service ? calls : each.kind === "plain" ? "of no service" : "calls, and is no service");
  const said = service
    ? `${each.name}: ${word}, ${each.ready} of ${each.instances} instances ready, ${rate(each.rate_per_s)} calls a second, success ${percent(each.success)}, 99th percentile ${time(each.p99_ms)}${open ? `, breakers ${open}` : ""}`
    : each.kind === "plain" ? `${each.name}: subjects of no service` : `${each.name}: a client`;
  text(title, said);
  set(node, "aria-label", said);
}

function makeEdge(each) {
  const id = `${each.source}>${each.service}`;
  return s("g", { class: "edge", "data-edge": id }, s("title"), s("path", { class: "line", "marker-end": "url(#tip)" }), s("path", { class: "flow" }),
    s("g", { class: "label" },
      s("g", { class: "lock" }, s("path", { d: "M-3.5 0v-3.2a3.5 3.5 0 0 1 7 0v3.2" }), s("rect", { class: "body", x: -5, y: 0, width: 10, height: 7, rx: 1.5 })),
      s("text", {}), s("text", { class: "trouble", y: 14 })));
}

function drawEdge(node, each, on) {
  const errors = errorShare(each);
  const kind = each.breaker === "OPEN" ? "open" : each.breaker ? "half" : { bad: "errors", warn: "some" }[each.level] || "";
  const [title, line, flow, label] = node.childNodes;
  const [lock, figures, trouble] = label.childNodes;
  const { path, x, y } = route(model.document.services[each.source], model.document.services[each.service]);
  set(node, "class", `edge ${kind}${each.rate_per_s > 0 ? "" : " still"}${on ? "" : " off"}`);
  set(line, "d", path);
  set(flow, "d", path);
  const weight = Math.log10(1 + each.rate_per_s);
  set(line, "stroke-width", (1.3 + Math.round(weight * 2) / 2).toFixed(1));
  set(flow, "stroke-width", (3.5 + Math.round(weight)).toFixed(1));
  const beat = `${(2.4 / (1 + Math.round(weight * 2) / 2)).toFixed(2)}s`;
  if (flow.style.getPropertyValue("--beat") !== beat) flow.style.setProperty("--beat", beat);
  set(label, "transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
  text(figures, `${rate(each.rate_per_s)}/s · ${time(each.p99_ms)}`);
  const words = [each.breaker ? `⊘ ${each.breaker}` : "", errors >= 0.0001 ? `✕ ${percent(errors)}` : "", each.gave_up_level ? `${gaveUp(each)} gave up` : ""].filter(Boolean).join("  ");
  text(trouble, words);
  lock.style.display = each.locks.length ? "" : "none";
  set(lock, "transform", `translate(${-figures.textContent.length * 3.1 - 12} -6)`);
  text(title, `${each.source} → ${each.service}: ${rate(each.rate_per_s)} calls a second (${rate(each.attempts_per_s)} attempts), success ${percent(each.success)}${each.gave_up ? `, ${part(each.gave_up)} given up` : ""}, p50 ${time(each.p50_ms)}, p99 ${time(each.p99_ms)}${each.breaker ? `, breaker ${each.breaker}` : ""}${each.locks.length ? `, locked by ${each.locks.join(" and ")}` : ""}${each.last_error ? `, last error: ${each.last_error}` : ""}`);
}

// A curve from the right side of the caller to the left side of whom it calls; back and to itself it goes around.
function route(from, to) {
  const [w, hgt] = [BOX.width / 2, BOX.height / 2];
  const [x1, y1, x2, y2] = [from.x * BOX.dx, from.y * BOX.dy, to.x * BOX.dx, to.y * BOX.dy];
  if (from === to) {
    const top = y1 - hgt;
    return { path: `M${x1 + 30} ${top}C${x1 + 60} ${top - 46} ${x1 - 60} ${top - 46} ${x1 - 30} ${top}`, x: x1, y: top - 38 };
  }
  if (x2 <= x1) {
    const side = Math.max(x1, x2) + w + 70;
    return { path: `M${x1 + w} ${y1 + 9}C${side} ${y1} ${side} ${y2} ${x2 + w} ${y2 + 9}`, x: (x1 + x2) / 2 + w + 46, y: (y1 + y2) / 2 };
  }
  const bend = Math.max(60, (x2 - x1) * 0.4);
  // Over more than one column a straight line would run through the boxes between.
  const bow = to.x - from.x > 1 && Math.abs(y2 - y1) < BOX.dy ? -BOX.dy * 0.75 : 0;
  const [a, b] = [x1 + w, x2 - w - 2];
  return { path: `M${a} ${y1}C${a + bend} ${y1 + bow} ${b - bend} ${y2 + bow} ${b} ${y2}`, x: (a + b) / 2, y: (y1 + y2) / 2 + bow * 0.75 - 5 };
}

function heat() {
  graph.svg.classList.toggle("focused", Boolean(graph.hot));
  for (const node of graph.edges.childNodes) {
    const edge = model.document.edges[node.dataset.edge];
    node.classList.toggle("hot", Boolean(graph.hot && edge && (edge.source === graph.hot || edge.service === graph.hot)));
  }
}
