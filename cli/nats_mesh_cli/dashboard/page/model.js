// What is known, and how it comes: one stream of server-sent events, everything at first and then what is new.

const KEPT = 60; // seconds of history
const SILENT_MS = 4000; // a second without a word is late, four are an outage

const model = {
  document: { mesh: { "": {} }, services: {}, edges: {}, policies: {}, members: {}, events: {} },
  trends: {},
  known: false, // whether anything has come yet
  heard: performance.now(),
  lost: false,
  listeners: [],
};
const mesh = () => model.document.mesh[""] || {};
const rows = (section) => Object.values(model.document[section] || {});

function tell() {
  for (const listener of model.listeners) listener();
}

function takeFull(message) {
  const { document: whole, trends } = JSON.parse(message.data);
  model.document = whole;
  model.trends = trends;
  heard();
}

function takeDelta(message) {
  for (const [section, change] of Object.entries(JSON.parse(message.data))) {
    const table = model.document[section] || (model.document[section] = {});
    Object.assign(table, change.set);
    for (const key of change.gone) delete table[key];
  }
  push("", mesh().rate_per_s || 0);
  for (const service of rows("services")) if (service.kind === "service") push(service.name, service.rate_per_s);
  for (const name of Object.keys(model.trends)) if (name && !model.document.services[name]) delete model.trends[name];
  heard();
}

function push(name, value) {
  const values = model.trends[name] || (model.trends[name] = []);
  values.push(value);
  if (values.length > KEPT) values.splice(0, values.length - KEPT);
}

function heard() {
  model.known = true;
  model.heard = performance.now();
  model.lost = false;
  tell();
}

function connect() {
  const source = new EventSource("/api/stream");
  source.addEventListener("full", takeFull);
  source.addEventListener("delta", takeDelta);
  source.addEventListener("error", () => {
    model.lost = true;
    tell();
    // The browser comes back by itself with the number of what it has, except after an answer that is no stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  });
}

setInterval(() => {
  if (!model.lost && performance.now() - model.heard > SILENT_MS) model.lost = true;
  if (model.lost) tell();
}, 1000);
