// A chart of numbers over time: plotly draws it, a table says the same.

import { h, replace } from "../../dom.js";
import { timeMarks, valueMarks } from "./axis.js";
import { plotly } from "./plotly.js";

const HEIGHT_PX = 210;
// A finger that moves over a chart wants to scroll the page.
const TOUCH = matchMedia("(pointer: coarse) and (hover: none)");
const DARK = matchMedia("(prefers-color-scheme: dark)");

/**
 * Makes a chart.
 *
 * @param {string} title
 * @param {{lines: Object[], format: function, whole?: boolean, axisFormat?: function}} how lines: {name, of(row), kind:
 *   "bar" | "line", colour: a CSS variable, dash, symbol, pattern}; bars are stacked; format: of a value
 * @param {{zoom(fromMs, toMs), back()}} asked what dragging and double clicking does
 * @returns {{element, show(series), rest()}} series: {rows, fromMs, toMs, zone, when(row), said, ghost: {name, of(at)} | null}
 */
export function chart(title, how, asked) {
  const place = h("div.chart-place", { role: "img", "aria-label": title });
  const said = h("p.quiet.chart-said");
  const figures = h("div.scroll");
  const details = h("details.chart-figures", { ontoggle: () => drawTable() }, h("summary", {}, "As a table"), figures);
  const element = h("figure.chart", {}, h("figcaption", {}, h("h2", {}, title), said), place, details);
  let series = null;
  let drawn = null; // plotly, once it has begun to draw here

  const observer = new ResizeObserver(() => drawn && draw());
  observer.observe(place);
  DARK.addEventListener("change", draw);

  async function draw() {
    if (series === null) return;
    let library;
    try {
      library = await plotly();
    } catch (error) {
      return replace(place, h("p.quiet", {}, `${error.message} The same figures stand in the table.`));
    }
    if (series === null || !place.isConnected) return;
    const width = place.clientWidth;
    if (!width) return;
    const first = drawn === null;
    if (first) place.replaceChildren();
    drawn = library;
    await library.react(place, traces(how, series), layout(how, series, width), { displayModeBar: false, doubleClick: false, scrollZoom: false });
    if (first) {
      place.on("plotly_relayout", (changes) => zoomed(changes, asked));
      place.on("plotly_doubleclick", () => asked.back());
    }
  }

  function drawTable() {
    if (!details.open || series === null) return;
    const shown = series;
    replace(figures, h("table", {},
      h("caption.unseen", {}, title),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "From"), how.lines.map((line) => h("th.number", { scope: "col" }, line.name)))),
      h("tbody", {}, shown.rows.map((row) => h("tr", {},
        h("th", { scope: "row" }, shown.when(row.start)),
        how.lines.map((line) => h("td.number", {}, how.format(line.of(row)))))))));
  }

  return {
    element,
    show(given) {
      series = given;
      place.setAttribute("aria-label", `${title}: ${given.said}`);
      replace(said, given.said);
      drawTable();
      draw();
    },
    rest() {
      series = null;
      observer.disconnect();
      DARK.removeEventListener("change", draw);
      drawn?.purge(place);
    },
  };
}

function zoomed(changes, asked) {
  const [from, to] = [changes["xaxis.range[0]"], changes["xaxis.range[1]"]];
  if (typeof from === "number" && typeof to === "number" && to > from) asked.zoom(from, to);
}

function traces(how, { rows, lengthMs, when, ghost }) {
  const colour = paint();
  const x = rows.map((row) => row.start + lengthMs / 2);
  // One text for all lines: a reader compares them at one moment.
  const hover = rows.map((row) => [when(row.start), ...how.lines.map((line) => `${line.name} ${how.format(line.of(row))}`), ...(ghost ? [`${ghost.name} ${how.format(ghost.of(row.start))}`] : [])].join("<br>"));
  const made = how.lines.map((line, at) => ({
    name: line.name, x, y: rows.map(line.of), ...(at ? { hoverinfo: "skip" } : { hoverinfo: "text", hovertext: hover }),
    ...(line.kind === "bar"
      ? { type: "bar", marker: { color: colour(line.colour), line: { width: 0 }, pattern: { shape: line.pattern ?? "", fillmode: "overlay", size: 5, solidity: 0.35, fgcolor: colour("--sheet") } } }
      : { type: "scatter", mode: "lines+markers", connectgaps: false, line: { color: colour(line.colour), width: 2, dash: line.dash }, marker: { size: rows.length > 100 ? 3 : 5, symbol: line.symbol } }),
  }));
  if (ghost) {
    made.push({
      name: ghost.name, x, y: rows.map((row) => ghost.of(row.start)), hoverinfo: "skip", type: "scatter", mode: "lines",
      line: { color: colour("--quiet"), width: 1.5, dash: "dot", shape: "hvh" },
    });
  }
  return made;
}

function layout(how, { rows, fromMs, toMs, zone, ghost }, width) {
  const colour = paint();
  const stacked = how.lines.every((line) => line.kind === "bar");
  const tops = rows.map((row) => {
    const values = how.lines.map((line) => line.of(row) ?? 0);
    return Math.max(stacked ? values.reduce((sum, each) => sum + each, 0) : Math.max(...values), ghost?.of(row.start) ?? 0);
  });
  const font = { family: getComputedStyle(document.body).fontFamily, size: Number.parseFloat(getComputedStyle(document.documentElement).fontSize) * 0.86, color: colour("--quiet") };
  return {
    width, height: HEIGHT_PX, font, barmode: "stack", bargap: 0.12, hovermode: "x", dragmode: TOUCH.matches ? false : "zoom",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 58, r: 20, t: 26, b: 28 },
    legend: { orientation: "h", traceorder: "normal", x: 0, y: 1.02, yanchor: "bottom", font, itemclick: false, itemdoubleclick: false },
    showlegend: how.lines.length > 1 || Boolean(ghost),
    hoverlabel: { bgcolor: colour("--sheet"), bordercolor: colour("--line"), font: { ...font, color: colour("--ink") }, align: "left" },
    xaxis: {
      type: "linear", range: [fromMs, toMs], tickmode: "array", ...timeMarks(fromMs, toMs, zone, Math.max(2, Math.floor(width / 80))),
      gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false, showgrid: false, ticks: "outside", tickcolor: colour("--line"), showspikes: false,
    },
    yaxis: {
      type: "linear", fixedrange: true, tickmode: "array", ...valueMarks(Math.max(0, ...tops), how.axisFormat ?? how.format, { whole: how.whole }),
      gridcolor: colour("--line"), zerolinecolor: colour("--line"), rangemode: "tozero",
    },
  };
}

function paint() {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(name).trim();
}
