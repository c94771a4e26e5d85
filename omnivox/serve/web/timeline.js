// Where the time of one turn went, drawn as bars on one axis, with the same numbers in a table beside it.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600;
const LANE = 12;
const STEPS = [
  // name, words, lane: the pause is above, for the model works during it
  ["pause", "Pause", 0],
  ["encode", "Encode", 1],
  ["token", "First token", 1],
  ["sound", "First sound", 1],
  ["heard", "Heard", 1],
];

/**
 * times: {pause, encode, token, sound, heard}, milliseconds from the end of the question to the end of each step;
 * null where a step did not happen or was not told.
 */
export function timeline(times) {
  const known = STEPS.filter(([name]) => Number.isFinite(times[name]));
  if (!known.length) return null;
  const figure = document.createElement("figure");
  figure.className = "timeline";
  figure.append(drawing(times, known), table(times, known));
  return figure;
}

function drawing(times, known) {
  const end = Math.max(...known.map(([name]) => times[name]), 1);
  const x = (ms) => (ms / end) * WIDTH;
  const words = known.map(([name, label]) => `${label.toLowerCase()} ${Math.round(times[name])}`).join(", ");
  const lanes = known.some(([name]) => name === "pause") ? 2 : 1;
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${lanes * (LANE + 2)}`, preserveAspectRatio: "none", role: "img",
                               "aria-label": `Milliseconds after the question ended: ${words}.` });
  let reached = 0; // where the model's lane has got to
  for (const [name, , lane] of known) {
    const from = lane ? Math.min(reached, times[name]) : 0;
    const y = (lanes - 1) * lane * (LANE + 2) + 1;
    const width = Math.max(2, x(times[name]) - x(from));
    svg.append(element("rect", { class: name, x: Math.min(x(from), WIDTH - 2), y, width, height: LANE, rx: 2 }));
    if (lane) reached = waited(times, name, Math.max(reached, times[name]));
  }
  return svg;
}

/** What was prepared during the pause waits for its end. */
function waited(times, name, reached) {
  const next = STEPS[STEPS.findIndex(([known]) => known === name) + 1]?.[0];
  return times.pause > reached && times[next] >= times.pause ? times.pause : reached;
}

function table(times, known) {
  const table = document.createElement("table");
  table.createCaption().textContent = "Milliseconds after the question ended";
  const head = table.createTHead().insertRow();
  const row = table.createTBody().insertRow();
  for (const [name, label] of known) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.className = name;
    cell.textContent = label;
    head.append(cell);
    row.insertCell().textContent = `${Math.round(times[name])} ms`;
  }
  return table;
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
