// The library of charts, loaded when the first chart is drawn.

import { h } from "../../dom.js";

// It would write style rules of its own into the page, which the policy forbids. An element of these names tells it that they are
// there already: those it needs for our charts are in usage.css, and those of maps nobody needs. The second is a hash of the rules:
// with another release of plotly it may be another one, and then the browser says on its console that it has stopped a style.
const STYLES = ["plotly.js-style-global", "9f215cf04c5486422605d13261cb87401f4e7763b6296af81e98efbc0130da53"];

let loaded = null;

/** Returns plotly; a failed attempt is made again by the next call. */
export function plotly() {
  loaded ??= load().catch((error) => {
    loaded = null;
    throw error;
  });
  return loaded;
}

function load() {
  for (const id of STYLES) {
    if (!document.getElementById(id)) document.head.append(h("meta.no-inline-styles", { id }));
  }
  return new Promise((resolve, reject) => {
    const script = h("script", {
      src: "dashboard/plotly.min.js",
      onload: () => resolve(window.Plotly),
      onerror: () => {
        script.remove();
        reject(new Error("The library of charts could not be loaded."));
      },
    });
    document.head.append(script);
  });
}
