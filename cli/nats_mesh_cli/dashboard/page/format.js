// Numbers and states as people read them. Every state has a word and a sign besides its colour.
"use strict";

const NOTHING = "–";

function rate(value) {
  if (value === undefined || value === null) return NOTHING;
  if (value >= 10000) return `${(value / 1000).toFixed(0)}k`;
  if (value >= 1000) return `${(value / 1000).toFixed(1)}k`;
  return value >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1);
}

// In three digits, as everywhere else: nobody has measured more.
const UNITS = [["µs", 0.001], ["ms", 1], ["s", 1000], ["m", 60000], ["h", 3600000]];
function time(ms) {
  if (ms === undefined || ms === null) return NOTHING;
  const [unit, size] = UNITS.find(([, each]) => ms < 999.5 * each) || UNITS.at(-1);
  const value = ms / size;
  return `${value.toFixed(value >= 99.95 || !value ? 0 : value >= 9.995 ? 1 : 2)} ${unit}`;
}

// Cut and not rounded: 99.996 % is not all.
function percent(share) {
  if (share === undefined || share === null) return NOTHING;
  return share >= 1 ? "100 %" : `${(Math.floor(share * 10000) / 100).toFixed(2)} %`;
}

// What is some is neither nothing nor all.
function part(share) {
  if (share <= 0 || share >= 1) return share <= 0 ? "0 %" : "100 %";
  return share < 0.001 ? "<0.1 %" : share > 0.999 ? ">99.9 %" : `${(share * 100).toFixed(1)} %`;
}

function clock(instant) {
  const moment = new Date(instant);
  return Number.isNaN(moment.getTime()) ? String(instant) : moment.toLocaleTimeString([], { hour12: false });
}

const STATES = {
  down: ["✕", "down", "bad", 0],
  failing: ["✕", "failing", "bad", 1],
  degraded: ["▲", "degraded", "warn", 2],
  ok: ["●", "ok", "ok", 3],
  idle: ["○", "idle", "idle", 4],
  client: ["◇", "client", "idle", 5],
  plain: ["◌", "subjects", "idle", 5],
};
const stateOf = (word) => STATES[word] || ["?", String(word), "idle", 6];

const SYNC = { SYNCED: ["●", "ok"], STALE: ["▲", "warn"], REJECTED: ["✕", "bad"], ELSEWHERE: ["○", "idle"] };

function versions(counts) {
  const all = Object.entries(counts || {});
  return all.length > 1 ? all.map(([name, count]) => `${name} ×${count}`).join(", ") : all.map(([name]) => name).join("");
}

function breakers(counts) {
  return Object.entries(counts || {}).map(([state, count]) => (count > 1 ? `${state} ×${count}` : state)).join(" ");
}

// How bad something is, the server says (trouble.py): the page knows no limits of its own.
const SIGNS = { bad: "✕", warn: "▲" };
const signed = (level, text) => (SIGNS[level] ? `${SIGNS[level]} ${text}` : text);

function errorShare(row) {
  return row.success === null || row.success === undefined ? 0 : 1 - row.success;
}
