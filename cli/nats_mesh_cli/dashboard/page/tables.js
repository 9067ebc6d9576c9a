// Services, policies and events as tables.

const stateCell = {
  head: "State", short: true,
  cell: (row) => `${stateOf(row.state)[0]} ${stateOf(row.state)[1]}`,
  kind: (row) => stateOf(row.state)[2],
  sort: (row) => -stateOf(row.state)[3],
};
const successCell = {
  head: "Success", num: true, cell: (row) => signed(row.success_level, percent(row.success)), sort: errorShare,
  kind: (row) => row.success_level,
};
const gaveUp = (row) => (row.gave_up ? signed(row.gave_up_level, part(row.gave_up)) : "");
const gaveUpCell = { head: "Gave up", num: true, cell: gaveUp, kind: (row) => row.gave_up_level, sort: (row) => row.gave_up || 0 };
const timeCell = (head, field) => ({ head, num: true, cell: (row) => time(row[field]), sort: (row) => row[field] || 0 });
const rateCell = (head, field) => ({ head, num: true, cell: (row) => rate(row[field]), sort: (row) => row[field] || 0 });

const views = {};

views.services = {
  element: null,
  make() {
    this.table = new Table("Services", [
      { head: "Service", fill: (td, row) => linkTo(td, row.name), sort: (row) => row.name },
      stateCell,
      { head: "Versions", cell: (row) => versions(row.versions), sort: (row) => versions(row.versions) },
      { head: "Ready", num: true, cell: (row) => `${row.ready}/${row.instances}`, sort: (row) => row.instances },
      successCell,
      gaveUpCell,
      rateCell("Calls/s", "rate_per_s"),
      rateCell("Attempts/s", "attempts_per_s"),
      timeCell("p50", "p50_ms"), timeCell("p90", "p90_ms"), timeCell("p99", "p99_ms"),
      { head: "In flight", num: true, cell: (row) => row.in_flight, sort: (row) => row.in_flight },
      { head: "Breakers", short: true, cell: (row) => (breakers(row.breakers) ? `⊘ ${breakers(row.breakers)}` : ""), kind: (row) => row.breakers_level, sort: (row) => breakers(row.breakers) },
      { head: "Last minute", fill: (td, row) => {
        if (!td.firstChild) td.append(spark());
        drawSpark(td.firstChild, model.trends[row.name] || [], `calls a second over the last minute, now ${rate(row.rate_per_s)}`);
      } },
    ], (row) => row.name, { sort: 1, empty: "No service fits, or none is there yet." });
    this.element = this.table.element;
  },
  draw(matches) {
    this.table.update(rows("services").filter((each) => each.kind === "service" && matches(each.name)));
  },
};

views.policies = {
  element: null,
  make() {
    this.note = h("p", {});
    this.policies = new Table("Policies on the bus", [
      { head: "Policy", cell: (row) => row.policy, sort: (row) => row.policy },
      { head: "Target", cell: (row) => row.target, sort: (row) => row.target },
      { head: "Revision", num: true, cell: (row) => row.revision, sort: (row) => row.revision },
      { head: "Changed", short: true, cell: (row) => row.time.replace("T", " ").slice(0, 19), sort: (row) => row.time },
      { head: "By", cell: (row) => row.operator, sort: (row) => row.operator },
      { head: "Message", cell: (row) => row.message },
    ], (row) => row.policy, { empty: "No policy stands on the bus." });
    this.members = new Table("Who follows them", [
      { head: "Member", fill: (td, row) => linkTo(td, row.service), sort: (row) => row.service },
      { head: "Instance", cell: (row) => row.name || row.id, sort: (row) => row.name },
      { head: "State", short: true, cell: (row) => `${(SYNC[row.sync] || ["?"])[0]} ${row.sync}`, kind: (row) => (SYNC[row.sync] || ["", ""])[1],
        sort: (row) => ["ELSEWHERE", "SYNCED", "STALE", "REJECTED"].indexOf(row.sync) },
      { head: "Revision", num: true, cell: (row) => row.revision ?? NOTHING, sort: (row) => row.revision ?? -1 },
      { head: "Reason", cell: (row) => row.reason },
    ], (row) => `${row.service}/${row.id}`, { sort: 2, empty: "Nobody is there." });
    this.element = h("div", {}, this.note, this.policies.element, this.members.element);
  },
  draw(matches) {
    const all = mesh();
    text(this.note, all.policies_problem ? `▲ ${all.policies_problem}` : "");
    set(this.note, "class", "warn");
    this.policies.update(rows("policies").filter((row) => matches(row.policy) || matches(row.target)));
    // Without policies nobody is behind, and nobody has others: there is nothing to say of members.
    show(this.members.element, all.head > 0 || all.rejecting > 0);
    this.members.update(rows("members").filter((row) => matches(row.service)));
  },
};

const eventColumns = [
  { head: "Time", short: true, cell: (row) => clock(row.at), sort: (row) => row.at },
  { head: "Event", short: true, cell: (row) => `${row.bad ? "✕" : "·"} ${row.kind}`, kind: (row) => (row.bad ? "bad" : ""), sort: (row) => row.kind },
  { head: "Told by", cell: (row) => row.service, sort: (row) => row.service },
  { head: "About", cell: (row) => row.target, sort: (row) => row.target },
  { head: "What", cell: (row) => `${row.detail}${row.missed ? ` (${row.missed} more before it were too many)` : ""}` },
];
// Events carry no key of their own here; the key of the table is what the server calls them.
const eventRows = () => Object.entries(model.document.events).map(([id, row]) => ({ id, ...row }));

views.events = {
  element: null,
  make() {
    this.table = new Table("Events, newest first", eventColumns, (row) => row.id, { sort: 0, empty: "Nothing has happened lately, as far as anybody here remembers." });
    this.element = this.table.element;
  },
  draw(matches) {
    this.table.update(eventRows().filter((row) => row.services.some(matches) || matches(row.target) || matches(row.kind)));
  },
};

views.graph = { element: graph.element, make() {}, draw: drawGraph };
