// The loss curve of a model card: read from its table, drawn as SVG.

import { h } from "./dom.js";
import { formatNumber, say, t } from "./i18n.js";

const HEADING = /^##\s+Loss curve\s*$/m;
const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [640, 220, 46, 14, 12, 26];
const MAX_POINTS = 2000;

/** A card's text without its curve's section, and that section's series, each `{ name, points: [[step, loss]] }`. */
export function takeCurve(card) {
  const heading = HEADING.exec(card);
  if (heading === null) return { rest: card, series: [] };
  const after = card.slice(heading.index + heading[0].length);
  const next = /^#{1,2}\s/m.exec(after);
  const section = next === null ? after : after.slice(0, next.index);
  const series = seriesOf(section);
  if (series.length === 0) return { rest: card, series };
  return { rest: card.slice(0, heading.index) + (next === null ? "" : after.slice(next.index)), series };
}

/** Every column of numbers beside the first column, which is the step. */
function seriesOf(section) {
  const lines = section.split("\n").filter((line) => line.trim().startsWith("|"));
  const [names = [], , ...rows] = lines.slice(0, MAX_POINTS).map((line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim()));
  return names
    .map((name, column) => ({ name, points: rows.map((row) => [numberOf(row[0]), numberOf(row[column])]).filter((point) => point.every(Number.isFinite)) }))
    .filter(({ points }, column) => column > 0 && points.length > 1);
}

function numberOf(cell = "") {
  return cell === "" ? Number.NaN : Number(cell.replaceAll(",", ""));
}

/** The picture of the series, with axes from 0. */
export function drawCurve(series) {
  const all = series.flatMap(({ points }) => points);
  const [low, high] = [Math.min(...all.map(([step]) => step)), Math.max(...all.map(([step]) => step))];
  const top = Math.max(...all.map(([, loss]) => loss)) || 1;
  const x = (step) => LEFT + ((step - low) / (high - low || 1)) * (WIDTH - LEFT - RIGHT);
  const y = (loss) => HEIGHT - BOTTOM - (Math.max(loss, 0) / top) * (HEIGHT - TOP - BOTTOM);
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "curve", role: "img" });
  const { points } = series[0];
  picture.setAttribute("aria-label", t("adapters.curve.label", { first: formatNumber(points[0][1], 3), last: formatNumber(points.at(-1)[1], 3), step: formatNumber(high) }));
  for (const share of [0, 0.25, 0.5, 0.75, 1]) picture.append(...gridLine(y(share * top), formatNumber(share * top, 2)));
  for (const share of [0, 0.5, 1]) picture.append(stepLabel(x(low + share * (high - low)), share, low + share * (high - low)));
  series.forEach((one, index) => picture.append(lineOf(one.points.map(([step, loss]) => [x(step), y(loss)]), index)));
  return h("figure", { class: "curve-figure" }, say(h("figcaption"), "adapters.curve"), picture, series.length > 1 && legend(series));
}

function legend(series) {
  return h("p", { class: "small legend" }, ...series.map(({ name }, index) => h("span", { class: `series-${index}` }, `— ${name}`)));
}

function gridLine(at, text) {
  const line = svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at, class: "grid" });
  return [line, words(LEFT - 8, at + 4, "end", text)];
}

function stepLabel(at, share, step) {
  return words(at, HEIGHT - 6, ["start", "middle", "end"][share * 2], formatNumber(Math.round(step)));
}

function lineOf(points, index) {
  const path = points.map(([x, y], at) => `${at === 0 ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  return svg("path", { d: path, class: `line series-${index}` });
}

function words(x, y, anchor, text) {
  const node = svg("text", { x, y, "text-anchor": anchor });
  node.textContent = text;
  return node;
}

function svg(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  return node;
}
