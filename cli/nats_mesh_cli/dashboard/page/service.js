// One service in full. What the stream does not carry is asked for once a second, while this page is open.

views.service = {
  element: null,
  name: "",
  detail: null,
  asking: false,
  make() {
    const callsColumns = (other) => [
      { head: other === "source" ? "Caller" : "Service", fill: (td, row) => linkTo(td, row[other]), sort: (row) => row[other] },
      { head: "Endpoint", cell: (row) => row.endpoint, sort: (row) => row.endpoint },
      rateCell("Calls/s", "rate_per_s"), rateCell("Attempts/s", "attempts_per_s"), successCell, gaveUpCell,
      timeCell("p50", "p50_ms"), timeCell("p99", "p99_ms"),
      { head: "Last error", cell: (row) => row.last_error },
    ];
    const callKey = (row) => `${row.source}>${row.service}.${row.endpoint}`;
    this.title = h("h2");
    this.state = h("span");
    this.figures = h("div", { class: "figures" });
    this.spark = spark();
    this.sparkLabel = h("div", { class: "dim" });
    this.bars = h("div", { class: "bars", role: "list" });
    this.noBars = h("p", { class: "empty" }, "no call within the last seconds");
    this.errors = h("ul", { class: "errors" });
    this.noErrors = h("p", { class: "dim" }, "● none");
    this.trouble = h("ul", { class: "errors bad" });
    this.endpoints = new Table("Endpoints", [
      { head: "Endpoint", cell: (row) => row.name, sort: (row) => row.name },
      rateCell("Calls/s", "rate_per_s"), successCell, gaveUpCell, timeCell("p50", "p50_ms"), timeCell("p90", "p90_ms"), timeCell("p99", "p99_ms"),
      { head: "In flight", num: true, cell: (row) => `${row.capacity.in_flight}/${row.capacity.limit || "∞"}`, sort: (row) => row.capacity.in_flight },
      { head: "Waiting", num: true, cell: (row) => row.capacity.queue, sort: (row) => row.capacity.queue },
      { head: "Breakers", short: true, cell: (row) => (breakers(row.breakers) ? `⊘ ${breakers(row.breakers)}` : ""), kind: (row) => row.breakers_level },
    ], (row) => row.name, { empty: "none has been called" });
    this.instances = new Table("Instances", [
      { head: "Instance", cell: (row) => row.name || row.id, sort: (row) => row.name },
      { head: "Id", cell: (row) => row.id, sort: (row) => row.id },
      { head: "Version", cell: (row) => row.version, sort: (row) => row.version },
      { head: "State", short: true, cell: (row) => `${{ ready: "●", suspect: "✕", silent: "✕" }[row.state] || "▲"} ${row.state}`, kind: (row) => ({ ready: "ok", suspect: "bad", silent: "bad" })[row.state] || "warn", sort: (row) => row.state },
      rateCell("Calls/s", "rate_per_s"), successCell, timeCell("p99", "p99_ms"),
      { head: "In flight", num: true, cell: (row) => row.capacity.in_flight, sort: (row) => row.capacity.in_flight },
      { head: "To the bus", num: true, cell: (row) => time(row.rtt_ms), sort: (row) => row.rtt_ms || 0 },
      { head: "Labels", cell: (row) => Object.entries(row.labels).map(([name, value]) => `${name}=${value}`).join(", ") },
    ], (row) => row.id, { empty: "no instance is there" });
    this.versions = new Table("Versions", [
      { head: "Version", cell: (row) => row.version, sort: (row) => row.version },
      { head: "Instances", num: true, cell: (row) => row.instances, sort: (row) => row.instances },
      rateCell("Calls/s", "rate_per_s"), successCell, timeCell("p50", "p50_ms"), timeCell("p99", "p99_ms"),
    ], (row) => row.version, { empty: "none" });
    this.callers = new Table("Called by", callsColumns("source"), callKey, { sort: 2, empty: "nobody has called it" });
    this.callees = new Table("Calls", callsColumns("service"), callKey, { sort: 2, empty: "it has called nobody" });
    this.events = new Table("Events", eventColumns, (row) => row.id, { sort: 0, empty: "nothing has happened lately" });
    this.missing = h("p", { class: "empty" });
    this.whole = h("div", {},
      this.figures, this.trouble,
      h("div", { class: "columns" },
        h("section", { class: "card wide" }, h("h3", {}, "Calls a second, last minute"), this.spark, this.sparkLabel),
        h("section", { class: "card" }, h("h3", { id: "latency" }, "Latency of the last seconds"), this.bars, this.noBars),
        h("section", { class: "card" }, h("h3", {}, "Last errors"), this.errors, this.noErrors)),
      this.endpoints.element, this.versions.element, this.instances.element, this.callers.element, this.callees.element, this.events.element);
    this.element = h("div", {}, this.title, this.missing, this.whole);
    this.title.append(h("span"), " ", this.state);
  },
  open(name) {
    if (name === this.name) return;
    this.name = name;
    this.detail = null;
    this.ask();
  },
  async ask() {
    if (this.asking || !this.name) return;
    this.asking = true;
    const name = this.name;
    try {
      const answer = await fetch(`/api/services/${encodeURIComponent(name)}`);
      const found = answer.ok ? await answer.json() : null;
      if (name === this.name) this.detail = found;
    } catch {
      // The stream's own banner says that the server is away; what is shown stays.
    } finally {
      this.asking = false;
    }
    if (name !== this.name) this.ask();
    else this.fillIn();
  },
  draw() {
    this.ask();
    this.fillIn();
  },
  fillIn() {
    const [name, detail] = [this.name, this.detail];
    const service = model.document.services[name];
    text(this.title.firstChild, name);
    const known = Boolean(service && detail);
    show(this.whole, known);
    show(this.missing, !known);
    if (!known) {
      text(this.missing, service || !model.known ? "asking …" : "Nobody here knows this service: it has gone, or was never there.");
      text(this.state, "");
      return;
    }
    const [sign, word, kind] = stateOf(service.state);
    text(this.state, `${sign} ${word}`);
    set(this.state, "class", kind);
    const capacity = service.capacity || {};
    const facts = {
      "versions": versions(service.versions) || NOTHING,
      "ready": service.kind !== "service" ? NOTHING : `${service.ready}/${service.instances}`,
      "calls/s": rate(service.rate_per_s), "success": percent(service.success),
      "gave up": gaveUp(service) || (service.kind !== "service" ? NOTHING : "0 %"),
      "p50": time(service.p50_ms), "p90": time(service.p90_ms), "p99": time(service.p99_ms),
      "capacity used": capacity.utilisation === null || capacity.utilisation === undefined ? NOTHING : part(capacity.utilisation),
      "calls in all": detail.total.requests, "of them failed": detail.total.errors,
    };
    keyed(this.figures, Object.entries(facts), ([label]) => label, ([label]) => h("span", {}, `${label} `, h("b")), (node, [, value]) => text(node.lastChild, value));
    const trouble = [
      ...detail.breakers.map((each) => `⊘ ${each.state}: ${each.caller} refuses to call ${each.endpoint}${each.subset ? ` (${each.subset})` : ""}`),
      ...detail.ejections.map((each) => `▲ ejected: ${each.ejected}, by ${each.caller}`),
    ];
    keyed(this.trouble, [...new Set(trouble)], (line) => line, (line) => h("li", {}, line), () => {});
    drawSpark(this.spark, model.trends[name] || [], `calls a second over the last minute, now ${rate(service.rate_per_s)}`);
    text(this.sparkLabel, `now ${rate(service.rate_per_s)}, at most ${rate(Math.max(...(model.trends[name] || [0]), 0))}`);
    this.histogram(detail.histogram);
    const failures = [
      ...detail.endpoints.filter((each) => each.last_error).map((each) => `${each.name}: ${each.last_error}`),
      ...detail.calls.filter((each) => each.last_error && each.service === name).map((each) => `${each.source} saw of ${each.endpoint}: ${each.last_error}`),
      ...Object.entries(detail.statuses).filter(([status]) => status !== "OK").map(([status, count]) => `${status}: ${count} within the last seconds`),
    ];
    keyed(this.errors, [...new Set(failures)], (line) => line, (line) => h("li", {}, line), () => {});
    show(this.noErrors, !failures.length);
    this.endpoints.update(detail.endpoints);
    this.versions.update(detail.versions);
    this.instances.update(detail.instances);
    this.callers.update(detail.calls.filter((each) => each.service === name));
    this.callees.update(detail.calls.filter((each) => each.source === name));
    this.events.update(eventRows().filter((row) => row.services.includes(name) || row.target === name || row.target.startsWith(`${name}.`)));
  },
  histogram(buckets) {
    const most = Math.max(...buckets.map((each) => each.count), 1);
    show(this.noBars, !buckets.length);
    keyed(this.bars, buckets.flatMap((each) => [["≤", each], ["bar", each], ["n", each]]), ([part, each]) => `${each.le_ms}${part}`,
      ([part]) => (part === "bar" ? h("div", { class: "track", "aria-hidden": "true" }, h("div", { class: "fill" })) : h("div", { class: part === "≤" ? "dim" : "" })),
      (node, [part, each]) => {
        if (part === "bar") node.firstChild.hidden = !each.count;
        if (part === "bar") node.firstChild.style.width = `${((100 * each.count) / most).toFixed(1)}%`;
        else text(node, part === "n" ? each.count : each.le_ms === null ? "longer" : `≤ ${time(each.le_ms)}`);
      });
  },
};
