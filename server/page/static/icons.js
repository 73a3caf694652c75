// The page's few icons, drawn as lines on 24 by 24. They have no name: what they stand in has one.

const SVG = "http://www.w3.org/2000/svg";

const PATHS = {
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
  pencil: "M12 20h8M15 5l4 4L9 19l-5 1 1-5z",
  plus: "M12 5v14M5 12h14",
  close: "M6 6l12 12M18 6L6 18",
  down: "M7 10l5 5 5-5",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
};

/** A new icon. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  for (const [attribute, value] of [
    ["viewBox", "0 0 24 24"],
    ["aria-hidden", "true"],
    ["class", `svg svg-${name}`],
  ]) {
    svg.setAttribute(attribute, value);
  }
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
