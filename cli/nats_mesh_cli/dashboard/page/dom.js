// The only places that put something into the page. Texts are set as text: no name can become markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) set(node, name, value);
  node.append(...children);
  return node;
}
const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Write only what is new: whatever a reader has selected or focused stays as it is.
function set(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}
function text(node, value) {
  if (node.textContent !== String(value)) node.textContent = String(value);
}
function show(node, yes) {
  if (node.hidden === yes) node.hidden = !yes;
}

// Children of `parent` for `items` in their order: made once for a key, then updated, moved only where they must be.
function keyed(parent, items, key, make, update) {
  const known = parent.keyedNodes || (parent.keyedNodes = new Map());
  const wanted = new Set();
  let next = parent.firstChild;
  for (const item of items) {
    const name = key(item);
    if (wanted.has(name)) continue;
    wanted.add(name);
    let node = known.get(name);
    if (!node) {
      node = make(item);
      known.set(name, node);
    }
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
    update(node, item);
  }
  for (const [name, node] of known) {
    if (wanted.has(name)) continue;
    known.delete(name);
    node.remove();
  }
}

const serviceLink = (name) => `#/services/${encodeURIComponent(name)}`;

function linkTo(cell, name) {
  if (!cell.firstChild) cell.append(h("a", {}));
  set(cell.firstChild, "href", serviceLink(name));
  text(cell.firstChild, name);
}

function spark() {
  return s("svg", { class: "spark", viewBox: "0 0 100 20", preserveAspectRatio: "none", role: "img" }, s("polyline", {}));
}
function drawSpark(svg, values, label) {
  const top = Math.max(...values, 0) * 1.1 || 1;
  const step = 100 / Math.max(values.length - 1, 1);
  set(svg.firstChild, "points", values.map((value, at) => `${(at * step).toFixed(1)},${(19 - (18 * value) / top).toFixed(1)}`).join(" "));
  set(svg, "aria-label", label);
}

// A table of keyed rows. A column: {head, num, short, cell(row) → text | fill(td, row), sort(row) → what to compare, kind(row) → class}.
class Table {
  constructor(caption, columns, key, { sort = null, down = true, empty = "" } = {}) {
    this.columns = columns;
    this.key = key;
    this.sort = sort;
    this.down = down;
    this.rows = [];
    this.heads = columns.map((column, at) => {
      const label = column.sort ? h("button", { type: "button" }, column.head) : column.head;
      const th = h("th", { scope: "col", class: column.num ? "num" : null }, label);
      if (column.sort) label.addEventListener("click", () => this.by(at));
      return th;
    });
    this.body = h("tbody");
    this.none = h("p", { class: "empty" }, empty || "nothing here");
    this.table = h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, ...this.heads)), this.body);
    this.element = h("div", { class: "scroll" }, this.table, this.none);
  }
  by(at) {
    this.down = this.sort === at ? !this.down : true;
    this.sort = at;
    this.update(this.rows);
  }
  update(rows) {
    this.rows = rows;
    let shown = rows;
    if (this.sort !== null) {
      const value = this.columns[this.sort].sort;
      const sign = this.down ? -1 : 1;
      shown = [...rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        const order = x < y ? -1 : x > y ? 1 : 0;
        return sign * order || (this.key(a) < this.key(b) ? -1 : 1);
      });
      this.heads.forEach((head, at) => set(head, "aria-sort", at === this.sort ? (this.down ? "descending" : "ascending") : null));
    }
    keyed(
      this.body, shown, this.key,
      () => h("tr", {}, ...this.columns.map(() => h("td"))),
      (tr, row) => {
        set(tr, "data-level", row.level || null);
        this.columns.forEach((column, at) => {
          const td = tr.childNodes[at];
          const kind = column.kind ? column.kind(row) : "";
          set(td, "class", [column.num ? "num" : "", column.short ? "short" : "", kind].filter(Boolean).join(" ") || null);
          if (column.fill) column.fill(td, row);
          else text(td, column.cell(row));
        });
      },
    );
    show(this.none, !shown.length);
    show(this.table, shown.length > 0);
  }
}
